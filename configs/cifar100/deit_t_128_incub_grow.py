"""DeiT-T of 128 blocks on CIFAR-100, Deep Incubation with the start `grow` (ours).

Paper:    no row; beside deit_t_128_incub
Run:      python tools/train.py configs/cifar100/deit_t_128_incub_grow.py
Batch:    512 = 1 GPU x 512; AdamW, lr 5e-4; epochs: meta 300, module 4 x 100, finetune 100
Cost:     about 6.0 GPU hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          meta 300 x 4 + module 4 x 100 x 35 + finetune 100 x 128 = 28,000 block-forwards an image, as deit_t_128_incub
Result:   not run
"""
_base_ = ['../_base_/cifar100.py', '../_base_/incub.py']
experiment = dict(task='classification', model='DeiT-T-128', method='incub_grow')
model = dict(
    type='mmincubation.IncubationModel', modules=4,
    arch=dict(embed_dim=192, depth=128, num_heads=3, patch_size=4, img_size=32, num_classes=100))
train_cfg = dict(start='grow', phases=dict(finetune=dict(drop_path_rate=0.1)))
