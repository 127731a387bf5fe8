"""Mask R-CNN on the embedded scenes, the backbone from random weights.

Run:   python tools/train.py configs/demo/maskrcnn_vit_demo_scratch.py
Cost:  160 iterations of 8 images; the three configs of this name differ in the backbone's weights alone.
"""
_base_ = '../_base_/demo/maskrcnn.py'
experiment = dict(task='detection', model='ViT-demo', method='scratch')
