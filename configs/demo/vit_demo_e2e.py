"""The E2E control of the demo: the ViT trained end to end, at the cost of the incubations.

Run:   python tools/train.py configs/demo/vit_demo_e2e.py
Cost:  24 blocks x 7 epochs = 168 block-forwards an image of the training set (8,000 images).
lr:    tried (seed 0, top-1, with the draws of an earlier version): 5e-4 59.2, 1e-3 68.2, 2e-3 65.9.
"""
_base_ = '../_base_/demo/digits.py'
experiment = dict(task='classification', model='ViT-demo', method='e2e')
model = dict(type='mmincubation.ViTClassifier', arch={{_base_.arch}})
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=7, val_interval=7)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
