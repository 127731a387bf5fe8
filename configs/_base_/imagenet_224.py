"""Data and schedule: ImageNet-1K at 224 with DeiT's augmentation and optimiser; docs/tasks/imagenet.md has the whys.

timm's `create_transform` gives crop (in training resized by torch, docs/measurements/datapath.md), flip and
RandAugment, which switches its colour jitter off. Erasing and mixup work on normalised batches, on the GPU, so the model's
`data_preprocessor` has them. Repeated augmentation: an epoch is a third of the images, three times each.
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
    batch_size=256,
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
                type='mmincubation.create_transform', input_size=224, is_training=True, interpolation='bicubic',
                auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4, normalize=False)
        ]))
val_dataloader = dict(
    batch_size=256,
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
                type='timm.data.create_transform', input_size=224, is_training=False, interpolation='bicubic',
                crop_pct=0.875, normalize=False)
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='mmincubation.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

# lr = 5e-4 * 2048 / 512: from 1e-6 up over 20 epochs, then down to 1e-5, moved every iteration. E2E, the meta
# model and the modules share it; fine-tuning has its own in incub.py. incub.py or the leaf has the epochs.
auto_scale_lr = dict(base_batch_size=2048)
optim_wrapper = dict(
    type='mmincubation.AutocastOptimWrapper',  # bfloat16
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 2e-3, by_epoch=True, convert_to_iter_based=True, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=20),
]

custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),  # writes what detectors and segmentors start from
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
