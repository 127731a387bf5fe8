_base_ = '../_base_/demo/digits.py'
experiment = dict(task='classification', model='ViT-demo', method='e2e')
arch = dict(dim=64, depth=24, heads=2, patch_size=8, img_size=32, num_classes=10)
model = dict(type='mmincubation.ViTClassifier', arch=arch)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=8, val_interval=2)
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='mmincubation.MergedOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=60),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=60),
]
