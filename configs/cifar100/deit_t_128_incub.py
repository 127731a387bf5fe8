"""DeiT-T of 128 blocks on CIFAR-100, Deep Incubation in four modules.

Paper:    Table 2, CIFAR-100, DeiT-T-128, Deep Incubation: top-1 77.2*
Run:      python tools/train.py configs/cifar100/deit_t_128_incub.py
Batch:    512 = 1 GPU x 512; AdamW, lr 5e-4; epochs: meta 300, module 4 x 100, finetune 100
Cost:     6.0 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = ['../_base_/cifar100.py', '../_base_/incub.py']
experiment = dict(task='classification', model='DeiT-T-128', method='incub')
model = dict(
    type='mmincubation.IncubationModel', modules=4,
    arch=dict(embed_dim=192, depth=128, num_heads=3, patch_size=4, img_size=32, num_classes=100))
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.1)))
