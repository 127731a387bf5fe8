"""Mask R-CNN 1x (12 epochs) on COCO from a ViT-L trained end to end (configs/imagenet/vit_l_e2e.py).

Paper:    COCO table, 1x, end to end: AP/AP50/AP75 box 44.1*/67.7*/48.5*, mask 40.4*/64.2*/43.1*.
          * quoted; the paper does not say of which ViT.
Run:      python tools/train.py configs/coco/maskrcnn_vit_l_e2e.py
          tools/dist_train.sh configs/coco/maskrcnn_vit_l_e2e.py 8
          python tools/test.py configs/coco/maskrcnn_vit_l_e2e.py work_dirs/maskrcnn_vit_l_e2e/epoch_12.pth
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-4; 12 epochs
Cost:     about 200 A100 hours (25 hours on 8), an estimate; docs/tasks/coco.md says how
Result:   not run
"""
_base_ = ['../_base_/maskrcnn.py', '../_base_/coco_1x.py']
experiment = dict(task='detection', model='ViT-L', method='e2e')
model = dict(
    backbone=dict(
        arch='vit_large', out_indices=(23, ), global_blocks=(5, 11, 17, 23), drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_l_e2e/weights/e2e_last.safetensors')),
    neck=dict(in_channels=1024))
