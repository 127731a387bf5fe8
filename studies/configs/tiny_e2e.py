"""A deep, narrow ViT (24 blocks of width 32) on Tiny-ImageNet at 32 x 32, trained end to end: the control.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/tiny_e2e.py
Batch:    128 = 1 CPU x 128; AdamW, lr 8e-3; 9 epochs
Cost:     9 epochs x 24 blocks = 216 block-forwards an image (of 100,000), as the incubation
Result:   docs/study.md
"""
_base_ = '_base_/tiny_imagenet_32.py'
experiment = dict(task='classification', model='ViT-24 w32', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier',
    arch=dict(embed_dim=32, depth=24, num_heads=1, patch_size=8, img_size=32, num_classes=200))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=9, val_interval=1)
