"""AdamW at batch 512, warm-up of 20 epochs, cosine; in bfloat16. lr = 5e-4 * 512 / 512, from 1e-6 and down to 1e-5."""
optim_wrapper = dict(
    type='mmincubation.AutocastOptimWrapper',
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 5e-4, by_epoch=True, convert_to_iter_based=True, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=20),
]
auto_scale_lr = dict(base_batch_size=512)
