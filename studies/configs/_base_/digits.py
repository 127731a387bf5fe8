"""Data and schedule: the demo's digits for the study: in memory, cropped as whole batches, with fewer validations."""
_base_ = '../../../configs/_base_/demo_digits.py'
model = dict(data_preprocessor=dict(type='mmincubation.ClsDataPreprocessor', crop=4))
train_dataloader = dict(dataset=dict(pipeline=[], in_memory=True))
val_dataloader = dict(dataset=dict(in_memory=True))
test_dataloader = dict(dataset=dict(in_memory=True))
optim_wrapper = dict(optimizer=dict(lr=2e-3))
train_cfg = dict(val_interval=10)
default_hooks = dict(checkpoint=dict(interval=10))
