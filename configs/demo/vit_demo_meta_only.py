"""The meta model of the demo alone, four blocks, trained for the whole budget of the incubations: a control.

Paper:    no row; the demo
Run:      python tools/train.py configs/demo/vit_demo_meta_only.py
Batch:    64 = 1 CPU x 64; AdamW, lr 1e-3; 42 epochs
Cost:     42 epochs x 4 blocks = 168 block-forwards an image (of 8,000), as the incubations;
          about 350 s on one CPU core
Tried:    lr 1e-3 alone, the rate of the incubations
Result:   the demo's table in README.md
"""
_base_ = '../_base_/demo_digits.py'
experiment = dict(task='classification', model='ViT-demo', method='meta_only')
model = dict(
    type='mmincubation.ViTClassifier',
    arch=dict(embed_dim=64, depth=4, num_heads=2, patch_size=8, img_size=32, num_classes=10, global_pool='avg'))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=42, val_interval=1)
