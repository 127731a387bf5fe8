"""Mask R-CNN on cell nuclei (Data Science Bowl 2018), the backbone a ViT of studies/tiny.py or random weights.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/maskrcnn_nuclei.py
Batch:    4 = 1 CPU x 4; AdamW, lr 2e-3; 400 iterations
Result:   docs/study.md
"""
_base_ = ['../../configs/_base_/demo_maskrcnn.py', '_base_/small_coco.py']
experiment = dict(task='detection', model='ViT-24 w32', method='scratch', data='nuclei')
data_root = 'data/nuclei/'
metainfo = dict(classes=('nucleus', ), palette=[(220, 20, 60)])
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'instances_val.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(arch=dict(embed_dim=32, num_heads=1), window_size=8),
    neck=dict(in_channels=32),
    rpn_head=dict(anchor_generator=dict(scales=[4])),
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=300), rcnn=dict(max_per_img=200)))  # many objects
