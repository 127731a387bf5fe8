"""Mask R-CNN on the embedded scenes, the backbone from the ViT trained end to end (vit_demo_e2e).

Paper:    no row; the demo. Its four configs differ in the weights of the backbone alone
Run:      python tools/train.py configs/demo/maskrcnn_vit_demo_e2e.py
Batch:    8 = 1 CPU x 8; AdamW, lr 2e-3; 160 iterations
Cost:     about 110 s on one CPU core
Result:   the demo's table in README.md
"""
_base_ = ['../_base_/demo_maskrcnn.py', '../_base_/demo_detection.py']
experiment = dict(task='detection', model='ViT-demo', method='e2e')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_demo_e2e/weights/e2e_last.safetensors')))
