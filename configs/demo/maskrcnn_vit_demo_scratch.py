_base_ = '../_base_/demo/maskrcnn.py'
experiment = dict(task='detection', model='ViT-demo', method='scratch')
