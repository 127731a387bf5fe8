"""ViT-H on ImageNet-1K at 224, the meta model of 4 blocks alone: a control.

Paper:    no row; a control of vit_h_incub
Run:      python tools/train.py configs/imagenet/vit_h_meta_only.py
          NNODES=4 MASTER_ADDR=HOST tools/dist_train.sh configs/imagenet/vit_h_meta_only.py 8
Batch:    2048 = 32 GPUs x 64; AdamW, lr 2e-3; 2200 epochs
Cost:     about 4,391 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          2,200 epochs x 4 blocks = 8,800 block-forwards an image, as vit_h_incub
Result:   not run
"""
_base_ = '../_base_/imagenet_224.py'
experiment = dict(task='classification', model='ViT-H', method='meta_only')
train_dataloader = dict(batch_size=64)
model = dict(type='mmincubation.ViTClassifier', arch=dict(name='vit_huge', depth=4))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2200, val_interval=10)
