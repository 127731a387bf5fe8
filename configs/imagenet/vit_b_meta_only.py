"""ViT-B on ImageNet-1K at 224, the meta model of 4 blocks alone: a control.

Paper:    no row; a control of vit_b_incub
Run:      python tools/train.py configs/imagenet/vit_b_meta_only.py
          tools/dist_train.sh configs/imagenet/vit_b_meta_only.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; 1200 epochs
Cost:     about 415 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          1,200 epochs x 4 blocks = 4,800 block-forwards an image, as vit_b_incub
Result:   not run
"""
_base_ = '../_base_/imagenet_224.py'
experiment = dict(task='classification', model='ViT-B', method='meta_only')
model = dict(type='mmincubation.ViTClassifier', arch=dict(name='vit_base', depth=4))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1200, val_interval=10)
