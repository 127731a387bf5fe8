"""UperNet on the embedded scenes, the backbone from random weights.

Run:   python tools/train.py configs/demo/upernet_vit_demo_scratch.py
Cost:  320 iterations of 8 images; the three configs of this name differ in the backbone's weights alone.
"""
_base_ = '../_base_/demo/upernet.py'
experiment = dict(task='segmentation', model='ViT-demo', method='scratch')
