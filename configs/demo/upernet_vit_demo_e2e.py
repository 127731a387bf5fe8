"""UperNet on the embedded scenes, the backbone from the ViT trained end to end (vit_demo_e2e).

Run:   python tools/train.py configs/demo/upernet_vit_demo_e2e.py
Cost:  320 iterations of 8 images; the three configs of this name differ in the backbone's weights alone.
"""
_base_ = '../_base_/demo/upernet.py'
experiment = dict(task='segmentation', model='ViT-demo', method='e2e')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_demo_e2e/weights/e2e_last.safetensors')))
