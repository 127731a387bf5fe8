"""Data and schedule: CIFAR-100 at 32 as DeiT's code treats it.

Padded crop, flip, RandAugment, erasing, mixup, repeated augmentation; the optimiser is imagenet_224.py's at batch 512.
"""
_base_ = './runtime.py'
default_scope = 'mmengine'
experiment = dict(data='CIFAR-100')
model = dict(data_preprocessor=dict(
    type='mmincubation.ClsDataPreprocessor',
    erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=0.25, mode='pixel', max_count=1),
    mixup=dict(
        type='timm.data.Mixup', mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode='batch',
        label_smoothing=0.1, num_classes=100)))
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
val_evaluator = dict(type='mmincubation.Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()

# lr = 5e-4 * 512 / 512: from 1e-6 up over 20 epochs, then down to 1e-5, moved every iteration.
auto_scale_lr = dict(base_batch_size=512)
optim_wrapper = dict(
    type='mmincubation.AutocastOptimWrapper',  # bfloat16
    constructor='mmincubation.ViTOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=5e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6 / 5e-4, by_epoch=True, convert_to_iter_based=True, end=20),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=20),
]

custom_hooks = [
    dict(type='mmincubation.CostMeter'),
    dict(type='mmincubation.ResultHook'),
    dict(type='mmincubation.WeightsHook'),  # writes what detectors and segmentors start from
]
visualizer = dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')])
