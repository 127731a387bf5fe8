"""ViT-L on ImageNet-1K at 224, Deep Incubation with 25 epochs a module and 25 of fine-tuning.

Paper: Training budgets, ViT-L, 25 + 25 epochs: top-1 79.8*
Run: python tools/train.py configs/imagenet/vit_l_incub_25_25.py
     tools/dist_train.sh configs/imagenet/vit_l_incub_25_25.py 8
Hardware: 8 GPUs x 256
Cost: ~340 A100 GPU hours* of the paper's own run
Result: not run
"""
_base_ = [
    '../_base_/imagenet/data_224.py',
    '../_base_/imagenet/schedule.py',
    '../_base_/imagenet/incub_25_25.py',
    '../_base_/classification.py',
]
experiment = dict(task='classification', model='ViT-L', method='incub_25_25')
model = dict(
    type='mmincubation.IncubationModel', arch=dict(name='vit_large'), modules=4,
    data_preprocessor={{_base_.data_preprocessor}})
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.5)))
