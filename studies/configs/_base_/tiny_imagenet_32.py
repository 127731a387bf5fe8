"""Data and schedule: Tiny-ImageNet at 32 x 32 on one CPU core: random crop and flip of whole batches.

The images lie in memory, decoded: reading them again would cost as much as a step of a narrow ViT.
"""
_base_ = '../../../configs/_base_/runtime.py'
default_scope = 'mmengine'
experiment = dict(data='Tiny-ImageNet-32')
model = dict(data_preprocessor=dict(type='mmincubation.ClsDataPreprocessor', crop=4, flip=0.5))
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(type='mmincubation.HFImages', root='data/tiny_imagenet_32/train', in_memory=True))
val_dataloader = dict(
    batch_size=500,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmincubation.HFImages', root='data/tiny_imagenet_32/val', in_memory=True))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmincubation.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=300),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=300),
]
auto_scale_lr = dict(base_batch_size=128)

custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
