"""Deep Incubation (arXiv 2212.04129) of a deep, very narrow ViT on the demo's digits, in two modules of six blocks.

Two modules, because depth pays here above a meta model of two blocks. A module and
fine-tuning have a third of E2E's epochs, as in the paper; what is left is the meta model's.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/digits_incub.py
Batch:    64 = 1 CPU x 64; AdamW, lr 2e-3; epochs: meta 150, module 2 x 30, finetune 30
Cost:     meta 150 x 2 + module 2 x 30 x 7 + finetune 30 x 12 = 1,080 block-forwards an image (of 8,000), as E2E
Result:   docs/study.md
"""
_base_ = '_base_/digits.py'
experiment = dict(task='classification', model='ViT-12 w16', method='incub')
model = dict(
    type='mmincubation.IncubationModel', modules=2,
    arch=dict(embed_dim=16, depth=12, num_heads=1, patch_size=8, img_size=32, num_classes=10))
train_cfg = dict(
    type='mmincubation.IncubationLoop', start='random',
    phases=dict(meta=dict(epochs=150), module=dict(epochs=30), finetune=dict(epochs=30)))
