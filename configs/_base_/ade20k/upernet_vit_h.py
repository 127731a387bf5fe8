"""UperNet on ADE20K with a ViT-H: what depends on the size."""
_base_ = ['./upernet.py', '../runtime.py']
experiment = dict(task='segmentation', model='ViT-H')
model = dict(
    backbone=dict(
        # Trained with patch 14 on 16 x 16 patches. Here patch 16, as on COCO: the kernel is PI-resized on loading, and
        # img_size=256 keeps the file's 16 x 16 position embedding.
        arch=dict(name='vit_huge', patch_size=16, img_size=256),
        out_indices=(7, 15, 23, 31),
        drop_path_rate=0.4),
    neck=dict(embed_dim=1280),
    decode_head=dict(in_channels=[1280] * 4),
    auxiliary_head=dict(in_channels=1280))
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=0.05))
# In each size's file: mmengine forbids one key in two bases of a list, and runtime.py has these.
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=8000, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'))
log_processor = dict(by_epoch=False)
