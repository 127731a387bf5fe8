"""CIFAR-100 at 32 as DeiT's code treats it: padded crop, flip, RandAugment, erasing, mixup, repeated augmentation."""
data_preprocessor = dict(
    type='mmincubation.ClsDataPreprocessor',
    erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=0.25, mode='pixel', max_count=1),
    mixup=dict(
        type='timm.data.Mixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode='batch',
        label_smoothing=0.1, num_classes=100))
train_dataloader = dict(
    batch_size=512,
    num_workers=8,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='mmincubation.RepeatAugSampler', num_repeats=3),
    collate_fn=dict(type='default_collate'),
    drop_last=True,
    dataset=dict(
        type='mmincubation.HFImages',
        root='data/cifar100/train',
        image='img',
        label='fine_label',
        pipeline=[
            dict(type='torchvision.transforms.RandomCrop', size=32, padding=4),
            dict(type='torchvision.transforms.RandomHorizontalFlip'),
            dict(
                type='timm.data.auto_augment.rand_augment_transform', config_str='rand-m9-mstd0.5-inc1',
                hparams=dict(img_mean=(124, 116, 104), interpolation=3))  # PIL's number of bicubic
        ]))
val_dataloader = dict(
    batch_size=512,
    num_workers=4,
    persistent_workers=True,
    pin_memory=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),  # every image on one rank, once
    collate_fn=dict(type='default_collate'),
    dataset=dict(type='mmincubation.HFImages', root='data/cifar100/test', image='img', label='fine_label'))
test_dataloader = val_dataloader
