"""DeiT-T of 32 blocks on CIFAR-100, trained end to end: the control.

Paper:    Table 2, CIFAR-100, DeiT-T-32, E2E: top-1 72.8*
Run:      python tools/train.py configs/cifar100/deit_t_32_e2e.py
Batch:    512 = 1 GPU x 512; AdamW, lr 5e-4; 300 epochs
Cost:     about 1.8 GPU hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = '../_base_/cifar100.py'
experiment = dict(task='classification', model='DeiT-T-32', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier', drop_path_rate=0.1,
    arch=dict(embed_dim=192, depth=32, num_heads=3, patch_size=4, img_size=32, num_classes=100))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
