"""UperNet on ADE20K with a ViT-B: what depends on the size."""
_base_ = ['./upernet.py', '../runtime.py']
experiment = dict(task='segmentation', model='ViT-B')
model = dict(
    backbone=dict(arch='vit_base', out_indices=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768))
optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
# In each size's file: mmengine forbids one key in two bases of a list, and runtime.py has these.
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=8000, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
