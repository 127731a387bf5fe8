"""ViT-L on ImageNet-1K at 224, the meta model of 4 blocks alone: a control.

Paper:    no row; a control of vit_l_incub
Run:      python tools/train.py configs/imagenet/vit_l_meta_only.py
          tools/dist_train.sh configs/imagenet/vit_l_meta_only.py 8
Batch:    2048 = 8 GPUs x 256; AdamW, lr 2e-3; 1800 epochs
Cost:     about 1,090 A100 hours; not stated by the paper, an estimate of docs/tasks/imagenet.md;
          1,800 epochs x 4 blocks = 7,200 block-forwards an image, as vit_l_incub
Result:   not run
"""
_base_ = '../_base_/imagenet_224.py'
experiment = dict(task='classification', model='ViT-L', method='meta_only')
model = dict(type='mmincubation.ViTClassifier', arch=dict(name='vit_large', depth=4))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1800, val_interval=10)
