"""ImageNet-1K at 224 with DeiT's augmentation; every value is explained in docs/tasks/imagenet.md.

timm's `create_transform` gives crop (in training resized by torch, docs/measurements/datapath.md), flip and
RandAugment (which switches its colour jitter off); erasing and mixup work on normalised batches, on the GPU. Repeated augmentation: an epoch is a third of the images, three times each.
"""
data_preprocessor = dict(
    type='mmincubation.ClsDataPreprocessor',
    erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=0.25, mode='pixel', max_count=1),
    mixup=dict(
        type='timm.data.Mixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode='batch',
        label_smoothing=0.1, num_classes=1000))
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
