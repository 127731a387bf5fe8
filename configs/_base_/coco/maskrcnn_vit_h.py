"""Mask R-CNN on ViT-H; attention is global at the end of each of the four modules of Deep Incubation.

The weights have patches of 14; here they are 16, so that the pyramid's strides are 4, 8, 16 and 32. The kernel is
resized on loading.
"""
_base_ = './maskrcnn.py'
model = dict(
    backbone=dict(
        arch=dict(name='vit_huge', patch_size=16, img_size=256),
        out_indices=(31, ),
        global_blocks=(7, 15, 23, 31),
        drop_path_rate=0.5,
        with_cp=True),
    neck=dict(in_channels=1280))
