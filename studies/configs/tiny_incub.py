"""Deep Incubation (arXiv 2212.04129) of a deep, narrow ViT on Tiny-ImageNet at 32 x 32, in four modules of six blocks.

The paper's proportions: a third of the meta model's epochs for each module, and as many for fine-tuning.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/tiny_incub.py
Batch:    128 = 1 CPU x 128; AdamW, lr 8e-3; epochs: meta 9, module 4 x 3, finetune 3
Cost:     meta 9 x 4 + module 4 x 3 x 9 + finetune 3 x 24 = 216 block-forwards an image (of 100,000), as E2E
Result:   docs/study.md
"""
_base_ = '_base_/tiny_imagenet_32.py'
experiment = dict(task='classification', model='ViT-24 w32', method='incub')
model = dict(
    type='mmincubation.IncubationModel', modules=4,
    arch=dict(embed_dim=32, depth=24, num_heads=1, patch_size=8, img_size=32, num_classes=200))
train_cfg = dict(
    type='mmincubation.IncubationLoop', start='random', val_interval=1,
    phases=dict(meta=dict(epochs=9), module=dict(epochs=3), finetune=dict(epochs=3)))
