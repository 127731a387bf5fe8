"""Fine-tuning at a higher resolution as DeiT does it: 30 epochs at lr 5e-6 for batch 512, after 5 of warm-up.

The paper does not say how it was done; these are DeiT's published settings.
"""
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=5)
optim_wrapper = dict(
    type='mmincubation.AutocastOptimWrapper',
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-8, fused=True))
param_scheduler = [dict(type='LinearLR', start_factor=1e-6 / 5e-6, by_epoch=True, convert_to_iter_based=True, end=5)]
auto_scale_lr = dict(base_batch_size=512)
