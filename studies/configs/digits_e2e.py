"""A deep, very narrow ViT (12 blocks of width 16) on the demo's digits, trained end to end: the control.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/digits_e2e.py
Batch:    64 = 1 CPU x 64; AdamW, lr 2e-3; 90 epochs
Cost:     90 epochs x 12 blocks = 1,080 block-forwards an image (of 8,000), as the incubation
Result:   docs/study.md
"""
_base_ = '_base_/digits.py'
experiment = dict(task='classification', model='ViT-12 w16', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier',
    arch=dict(embed_dim=16, depth=12, num_heads=1, patch_size=8, img_size=32, num_classes=10))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=90)
