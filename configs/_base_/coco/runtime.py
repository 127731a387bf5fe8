"""What all trainings on COCO share: optimiser, validation, pictures."""
_base_ = '../runtime.py'
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmincubation.ViTOptimWrapperConstructor',
    paramwise_cfg=dict(layer_decay=0.95),
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05, fused=True))
auto_scale_lr = dict(base_batch_size=16)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(visualization=dict(type='DetVisualizationHook'))
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
