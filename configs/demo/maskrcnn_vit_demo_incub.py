"""Mask R-CNN on the embedded scenes, the backbone from the incubated ViT (vit_demo_incub).

Run:   python tools/train.py configs/demo/maskrcnn_vit_demo_incub.py
Cost:  160 iterations of 8 images; the three configs of this name differ in the backbone's weights alone.
"""
_base_ = '../_base_/demo/maskrcnn.py'
experiment = dict(task='detection', model='ViT-demo', method='incub')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_demo_incub/weights/finetune_last.safetensors')))
