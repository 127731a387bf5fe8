"""The demo's ViT by each meta block copied to its module, without incubation, a control: a meta model of four blocks, then fine-tuning from `stack`.

Paper:    no row; the demo
Run:      python tools/train.py configs/demo/vit_demo_stack_only.py
Batch:    64 = 1 CPU x 64; AdamW, lr 1e-3; epochs: meta 12, module 4 x 0, finetune 5
Cost:     meta 12 x 4 + finetune 5 x 24 = 168 block-forwards an image (of 8,000), as the incubations;
          about 230 s on one CPU core
Tried:    lr 1e-3 alone, the rate of the incubations
Result:   the demo's table in README.md
"""
_base_ = '../_base_/demo_digits.py'
experiment = dict(task='classification', model='ViT-demo', method='stack_only')
model = dict(
    type='mmincubation.IncubationModel', modules=4,
    arch=dict(embed_dim=64, depth=24, num_heads=2, patch_size=8, img_size=32, num_classes=10, global_pool='avg'))
train_cfg = dict(
    type='mmincubation.IncubationLoop', start='stack', val_interval=1,
    phases=dict(meta=dict(epochs=12), module=dict(epochs=0), finetune=dict(epochs=5)))
