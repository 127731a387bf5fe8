"""DeiT-T of 128 blocks on CIFAR-100, the meta model of 4 blocks alone: a control.

Paper:    no row; a control of deit_t_128_incub
Run:      python tools/train.py configs/cifar100/deit_t_128_meta_only.py
Batch:    512 = 1 GPU x 512; AdamW, lr 5e-4; 7000 epochs
Cost:     about 5.2 GPU hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          7,000 epochs x 4 blocks = 28,000 block-forwards an image, as deit_t_128_incub
Result:   not run
"""
_base_ = '../_base_/cifar100.py'
experiment = dict(task='classification', model='DeiT-T-128', method='meta_only')
model = dict(
    type='mmincubation.ViTClassifier',
    arch=dict(embed_dim=192, depth=4, num_heads=3, patch_size=4, img_size=32, num_classes=100))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=7000, val_interval=10)
