"""ViT-L on ImageNet-1K at 224, growth without incubation: a control.

Paper:    no row; a control of vit_l_incub
Run:      python tools/train.py configs/imagenet/vit_l_grow_only.py
          tools/dist_train.sh configs/imagenet/vit_l_grow_only.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; epochs: meta 300, module 4 x 0, finetune 250
Cost:     about 1,090 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          meta 300 x 4 + finetune 250 x 24 = 7,200 block-forwards an image, as vit_l_incub
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-L', method='grow_only')
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_large'), modules=4)
train_cfg = dict(start='grow', phases=dict(module=dict(epochs=0), finetune=dict(epochs=250, drop_path_rate=0.5)))
