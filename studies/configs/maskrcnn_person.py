"""Mask R-CNN on photographs of one person (COCO 2017), the backbone a ViT of studies/tiny.py or random weights.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/maskrcnn_person.py
Batch:    4 = 1 CPU x 4; AdamW, lr 2e-3; 400 iterations
Result:   docs/study.md
"""
_base_ = ['../../configs/_base_/demo_maskrcnn.py', '_base_/small_coco.py']
experiment = dict(task='detection', model='ViT-24 w32', method='scratch', data='COCO persons')
data_root = 'data/coco_person/'
metainfo = dict(classes=('person', ), palette=[(220, 20, 60)])
train_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'instances_val.json')
test_evaluator = val_evaluator
model = dict(
    backbone=dict(arch=dict(embed_dim=32, num_heads=1), window_size=8),
    neck=dict(in_channels=32, scales=(1, 0.5)),
    rpn_head=dict(anchor_generator=dict(scales=[8], strides=[8, 16, 32])),
    roi_head=dict(
        bbox_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=48),
        mask_roi_extractor=dict(featmap_strides=[8, 16, 32], finest_scale=48),
        bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)))
