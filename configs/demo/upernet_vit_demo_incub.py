_base_ = '../_base_/demo/upernet.py'
experiment = dict(task='segmentation', model='ViT-demo', method='incub')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_demo_incub/weights/finetune_last.safetensors')))
