"""Data and schedule: fine-tuning on ImageNet-1K at 384.

The data is as in imagenet_224.py, with larger crops; a test holds it. The paper does not say how it fine-tuned. The
schedule is DeiT's published one: 30 epochs at lr 5e-6 for batch 512, after 5 epochs of warm-up. The leaves at 392
change the size of the crops and the images on each GPU.
"""
_base_ = './runtime.py'
default_scope = 'mmengine'
experiment = dict(data='ImageNet-1K')
model = dict(data_preprocessor=dict(
    type='mmincubation.ClsDataPreprocessor',
    erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=0.25, mode='pixel', max_count=1),
    mixup=dict(
        type='timm.data.Mixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode='batch',
        label_smoothing=0.1, num_classes=1000)))
train_dataloader = dict(
    batch_size=64,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='mmincubation.RepeatAugSampler', num_repeats=3),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='mmincubation.ImageFolder',
        root='data/imagenet/train',
        pipeline=[
            dict(
                type='mmincubation.create_transform', input_size=384, is_training=True, interpolation='bicubic',
                auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4, normalize=False)
        ]))
val_dataloader = dict(
    batch_size=64,
    num_workers=10,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),  # every image on one rank, once
    collate_fn=dict(type='default_collate'),
    dataset=dict(
        type='mmincubation.ImageFolder',
        root='data/imagenet/val',
        pipeline=[
            dict(
                type='timm.data.create_transform', input_size=384, is_training=False, interpolation='bicubic',
                crop_pct=0.875, normalize=False)
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmincubation.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

# lr = 5e-6 for batch 512: from 1e-6 up over 5 epochs, then constant.
auto_scale_lr = dict(base_batch_size=512)
optim_wrapper = dict(
    type='mmincubation.AutocastOptimWrapper',  # bfloat16
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-6, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-8, fused=True))
param_scheduler = [dict(type='LinearLR', start_factor=1e-6 / 5e-6, by_epoch=True, convert_to_iter_based=True, end=5)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=30, val_interval=5)

custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),  # writes what detectors and segmentors start from
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
