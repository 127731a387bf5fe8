"""Mask R-CNN on the embedded scenes, the backbone from the ViT trained end to end (vit_demo_e2e).

Run:   python tools/train.py configs/demo/maskrcnn_vit_demo_e2e.py
Cost:  160 iterations of 8 images; the three configs of this name differ in the backbone's weights alone.
"""
_base_ = '../_base_/demo/maskrcnn.py'
experiment = dict(task='detection', model='ViT-demo', method='e2e')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_demo_e2e/weights/e2e_last.safetensors')))
