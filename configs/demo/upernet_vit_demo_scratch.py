_base_ = '../_base_/demo/upernet.py'
experiment = dict(task='segmentation', model='ViT-demo', method='scratch')
