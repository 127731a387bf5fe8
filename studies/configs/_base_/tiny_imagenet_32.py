"""Data and schedule: Tiny-ImageNet at 32 x 32 on one CPU core: random crop and flip of whole batches.

The images lie in memory, decoded: reading them again would cost as much as a step of a narrow ViT.
"""
_base_ = '../../../configs/_base_/demo_digits.py'
experiment = dict(data='Tiny-ImageNet-32')
model = dict(data_preprocessor=dict(type='mmincubation.ClsDataPreprocessor', crop=4, flip=0.5))
train_dataloader = dict(
    batch_size=128,
    dataset=dict(
        _delete_=True, type='mmincubation.HFImages', root='data/tiny_imagenet_32/train', in_memory=True))
val_dataloader = dict(
    batch_size=500,
    dataset=dict(type='mmincubation.HFImages', root='data/tiny_imagenet_32/val', in_memory=True))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1, 5))
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=8e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=300),
    dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False, begin=300),
]
auto_scale_lr = dict(base_batch_size=128)
