"""Deep Incubation (arXiv 2212.04129) of the demo's ViT in four modules of six blocks, with the start `random`, the paper's own.

Run:   python tools/train.py configs/demo/vit_demo_incub_random.py
Cost:  meta 4 blocks x 12 epochs + 4 hybrids of 9 blocks x 2 epochs + fine-tuning 24 blocks x 2 epochs
       = 168 block-forwards an image of the training set (8,000 images), as the E2E control.
lr:    tried (seed 0, top-1, with the draws of an earlier version): 1e-3 64.7
       (others with a class-token head only, where 1e-3 was best).
"""
_base_ = '../_base_/demo/digits.py'
experiment = dict(task='classification', model='ViT-demo', method='incub_random')
model = dict(type='mmincubation.IncubationModel', arch={{_base_.arch}}, modules=4)
train_cfg = dict(
    type='mmincubation.IncubationLoop',
    start='random',
    phases=dict(
        meta=dict(epochs=12),
        module=dict(epochs=2),
        finetune=dict(epochs=2)),
    val_interval=12)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
