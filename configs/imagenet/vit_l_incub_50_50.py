"""ViT-L on ImageNet-1K at 224, Deep Incubation with 50 epochs a module and 50 of fine-tuning.

Paper: Training budgets, ViT-L, 50 + 50 epochs: top-1 82.7*
Run: python tools/train.py configs/imagenet/vit_l_incub_50_50.py
     tools/dist_train.sh configs/imagenet/vit_l_incub_50_50.py 8
Hardware: 8 GPUs x 256
Cost: ~520 A100 GPU hours* of the paper's own run
Result: not run
"""
_base_ = [
    '../_base_/imagenet/data_224.py',
    '../_base_/imagenet/schedule.py',
    '../_base_/imagenet/incub_50_50.py',
    '../_base_/classification.py',
]
experiment = dict(task='classification', model='ViT-L', method='incub_50_50')
model = dict(
    type='mmincubation.IncubationModel', arch=dict(name='vit_large'), modules=4,
    data_preprocessor={{_base_.data_preprocessor}})
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.5)))
