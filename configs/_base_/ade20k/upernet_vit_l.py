"""UperNet on ADE20K with a ViT-L: what depends on the size."""
_base_ = ['./upernet.py', '../runtime.py']
experiment = dict(task='segmentation', model='ViT-L')
model = dict(
    backbone=dict(arch='vit_large', out_indices=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024] * 4),
    auxiliary_head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=0.05))
# In each size's file: mmengine forbids one key in two bases of a list, and runtime.py has these.
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=8000, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
