"""ViT-B on 25 % of ImageNet-1K's images at 224, trained end to end: the control.

Paper:    Data efficiency, ViT-B, 25 % of ImageNet-1K, E2E: top-1 65.7*
Run:      python tools/train.py configs/imagenet/vit_b_e2e_25pct.py
          tools/dist_train.sh configs/imagenet/vit_b_e2e_25pct.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; 300 epochs
Cost:     about 78 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md
Result:   not run
"""
_base_ = '../_base_/imagenet_224.py'
experiment = dict(task='classification', model='ViT-B-25pct', data='ImageNet-1K, 25 %', method='e2e')
train_dataloader = dict(dataset=dict(fraction=0.25))
model = dict(type='mmincubation.ViTClassifier', arch=dict(name='vit_base'), drop_path_rate=0.1)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=300, val_interval=10)
