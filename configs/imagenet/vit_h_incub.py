"""ViT-H on ImageNet-1K at 224, Deep Incubation in four modules.

Paper:    ImageNet-1K, ViT-H 224, Deep Incubation: top-1 84.3*
Run:      python tools/train.py configs/imagenet/vit_h_incub.py
          NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_incub.py 8
Batch:    2048 = 32 GPUs x 64; AdamW, lr 2e-3; epochs: meta 300, module 4 x 100, finetune 100
Cost:     2.72K A100 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-H', method='incub')
train_dataloader = dict(batch_size=64)
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_huge'), modules=4)
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.6)))
