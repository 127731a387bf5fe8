"""DeiT-T of 128 blocks on CIFAR-100, each meta block copied to its module, without incubation: a control.

Paper:    no row; a control of deit_t_128_incub
Run:      python tools/train.py configs/cifar100/deit_t_128_stack_only.py
Batch:    512 = 1 GPU x 512; AdamW, lr 5e-4; epochs: meta 300, module 4 x 0, finetune 209
Cost:     about 5.2 GPU hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          meta 300 x 4 + finetune 209 x 128 = 27,952 block-forwards an image, deit_t_128_incub has 28,000
Result:   not run
"""
_base_ = ['../_base_/cifar100.py', '../_base_/incub.py']
experiment = dict(task='classification', model='DeiT-T-128', method='stack_only')
model = dict(
    type='mmincubation.IncubationModel', modules=4,
    arch=dict(embed_dim=192, depth=128, num_heads=3, patch_size=4, img_size=32, num_classes=100))
train_cfg = dict(start='stack', phases=dict(module=dict(epochs=0), finetune=dict(epochs=209, drop_path_rate=0.1)))
