"""Data and schedule: 32 x 32 pictures of one digit on a dimmed photograph, ten classes, on one CPU.

The leaf sets the ViT: deep and narrow (24 blocks of width 64), the regime that the method is for. Its head reads the
mean of the patches (the paper's reads the class token): so the patches know the class, which segmentation needs.
"""
_base_ = './runtime.py'
default_scope = 'mmengine'
experiment = dict(data='demo digits')
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

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=60),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=60),
]
auto_scale_lr = dict(base_batch_size=64)

custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),  # writes what detectors and segmentors start from
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
