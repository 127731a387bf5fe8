"""Deep Incubation (arXiv 2212.04129) of the demo's ViT in four modules of six blocks, with the start `grow` (ours).

Paper:    no row; the demo
Run:      python tools/train.py configs/demo/vit_demo_incub_grow.py
Batch:    64 = 1 CPU x 64; AdamW, lr 1e-3; epochs: meta 12, module 4 x 2, finetune 2
Cost:     meta 12 x 4 + module 4 x 2 x 9 + finetune 2 x 24 = 168 block-forwards an image (of 8,000), as its controls;
          about 200 s on one CPU core
Tried:    lr (seed 0, top-1, with the draws of an earlier version): 1e-3 86.8, 2e-3 85.9
Result:   the demo's table in README.md
"""
_base_ = '../_base_/demo_digits.py'
experiment = dict(task='classification', model='ViT-demo', method='incub_grow')
model = dict(
    type='mmincubation.IncubationModel', modules=4,
    arch=dict(embed_dim=64, depth=24, num_heads=2, patch_size=8, img_size=32, num_classes=10, global_pool='avg'))
train_cfg = dict(
    type='mmincubation.IncubationLoop', start='grow', val_interval=1,
    phases=dict(meta=dict(epochs=12), module=dict(epochs=2), finetune=dict(epochs=2)))
