"""The E2E control of the demo: the ViT trained end to end, at the cost of the incubations.

Paper:    no row; the demo
Run:      python tools/train.py configs/demo/vit_demo_e2e.py
Batch:    64 = 1 CPU x 64; AdamW, lr 1e-3; 7 epochs
Cost:     7 epochs x 24 blocks = 168 block-forwards an image (of 8,000), as the incubations;
          about 180 s on one CPU core
Tried:    lr (seed 0, top-1, with the draws of an earlier version): 5e-4 59.2, 1e-3 68.2, 2e-3 65.9
Result:   the demo's table in README.md
"""
_base_ = '../_base_/demo_digits.py'
experiment = dict(task='classification', model='ViT-demo', method='e2e')
model = dict(
    type='mmincubation.ViTClassifier',
    arch=dict(embed_dim=64, depth=24, num_heads=2, patch_size=8, img_size=32, num_classes=10, global_pool='avg'))
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=7, val_interval=1)
