"""Mask R-CNN on ViT-B; attention is global at the end of each of the four modules of Deep Incubation."""
_base_ = './maskrcnn.py'
model = dict(
    backbone=dict(arch='vit_base', out_indices=(11, ), global_blocks=(2, 5, 8, 11), drop_path_rate=0.1),
    neck=dict(in_channels=768))
