_base_ = '../_base_/demo/maskrcnn.py'
experiment = dict(task='detection', model='ViT-demo', method='e2e')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_demo_e2e/weights/e2e_last.safetensors')))
