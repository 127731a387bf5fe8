_base_ = './vit_demo_incub.py'
experiment = dict(method='incub_random')
train_cfg = dict(start='random')
