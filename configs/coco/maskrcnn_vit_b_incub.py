"""Mask R-CNN 1x (12 epochs) on COCO from a ViT-B incubated (configs/imagenet/vit_b_incub.py).

Paper:    COCO table, 1x, Deep Incubation: AP/AP50/AP75 box 45.7*/69.6*/50.3*, mask 41.8*/66.1*/44.7*.
          * quoted; the paper does not say of which ViT.
Run:      python tools/train.py configs/coco/maskrcnn_vit_b_incub.py
          tools/dist_train.sh configs/coco/maskrcnn_vit_b_incub.py 8
          python tools/test.py configs/coco/maskrcnn_vit_b_incub.py work_dirs/maskrcnn_vit_b_incub/epoch_12.pth
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-4; 12 epochs
Cost:     about 110 A100 hours (14 hours on 8), an estimate; docs/tasks/coco.md says how
Result:   not run
"""
_base_ = ['../_base_/maskrcnn.py', '../_base_/coco_1x.py']
experiment = dict(task='detection', model='ViT-B', method='incub')
model = dict(
    backbone=dict(
        arch='vit_base', out_indices=(11, ), global_blocks=(2, 5, 8, 11), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_b_incub/weights/finetune_last.safetensors')),
    neck=dict(in_channels=768))
