"""Embedded data: 32 x 32 pictures of one digit on a dimmed photograph, ten classes, batch 64."""
_base_ = '../runtime.py'
default_scope = 'mmengine'
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='mmincubation.ImageFolder',
        root='data/demo/cls/train',
        pipeline=[dict(type='torchvision.transforms.v2.RandomCrop', size=32, padding=4)]))
val_dataloader = dict(
    batch_size=250,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmincubation.ImageFolder', root='data/demo/cls/val'))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmincubation.Accuracy')
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(visualization=dict(type='mmincubation.ClsVisualizationHook'))
custom_hooks = [
    dict(type='mmincubation.SafeResumeHook'),
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
auto_scale_lr = dict(base_batch_size=64)
