"""ViT-H on ImageNet-1K at 224, Deep Incubation with 50 epochs a module and 50 of fine-tuning.

Paper: Training budgets, ViT-H, 50 + 50 epochs: top-1 83.4*
Run: python tools/train.py configs/imagenet/vit_h_incub_50_50.py
     NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_incub_50_50.py 8
Hardware: 32 GPUs x 64
Cost: ~1.49K A100 GPU hours* of the paper's own run
Result: not run
"""
_base_ = [
    '../_base_/imagenet/data_224.py',
    '../_base_/imagenet/schedule.py',
    '../_base_/imagenet/incub_50_50.py',
    '../_base_/classification.py',
]
experiment = dict(task='classification', model='ViT-H', method='incub_50_50')
train_dataloader = dict(batch_size=64)
model = dict(
    type='mmincubation.IncubationModel', arch=dict(name='vit_huge'), modules=4,
    data_preprocessor={{_base_.data_preprocessor}})
train_cfg = dict(phases=dict(finetune=dict(drop_path_rate=0.6)))
