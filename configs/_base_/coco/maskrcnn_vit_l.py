"""Mask R-CNN on ViT-L; attention is global at the end of each of the four modules of Deep Incubation."""
_base_ = './maskrcnn.py'
model = dict(
    backbone=dict(arch='vit_large', out_indices=(23, ), global_blocks=(5, 11, 17, 23), drop_path_rate=0.4),
    neck=dict(in_channels=1024))
