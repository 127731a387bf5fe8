"""ViT-B on 25 % of ImageNet-1K's images at 224, Deep Incubation in four modules.

Paper:    Data efficiency, ViT-B, 25 % of ImageNet-1K, Deep Incubation: top-1 72.9*
Run:      python tools/train.py configs/imagenet/vit_b_incub_25pct.py
          tools/dist_train.sh configs/imagenet/vit_b_incub_25pct.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; epochs: meta 300, module 4 x 100, finetune 100
Cost:     about 85 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-B-25pct', data='ImageNet-1K, 25 %', method='incub')
train_dataloader = dict(dataset=dict(fraction=0.25))
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_base'), modules=4)
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.1)))
