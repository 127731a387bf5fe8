"""ViT-L on ImageNet-1K at 224, Deep Incubation in four modules.

Paper:    ImageNet-1K, ViT-L 224, Deep Incubation: top-1 83.9*
Run:      python tools/train.py configs/imagenet/vit_l_incub.py
          tools/dist_train.sh configs/imagenet/vit_l_incub.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; epochs: meta 300, module 4 x 100, finetune 100
Cost:     0.89K A100 GPU hours* of the paper's own run
Result:   not run
"""
_base_ = ['../_base_/imagenet_224.py', '../_base_/incub.py']
experiment = dict(task='classification', model='ViT-L', method='incub')
model = dict(type='mmincubation.IncubationModel', arch=dict(name='vit_large'), modules=4)
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.5)))
