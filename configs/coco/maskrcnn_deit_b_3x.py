"""Calibration: Mask R-CNN 3x (36 epochs) on COCO from public DeiT-B, whose result others have published.

Paper:    no row; ours. ViT-Adapter's plain ViT-B from the same weights, on an FPN: AP box 45.8*, mask 41.3*.
          * quoted. The weights, under the name of torch hub (https://dl.fbaipublicfiles.com/deit/), go to pretrained/.
Run:      python tools/train.py configs/coco/maskrcnn_deit_b_3x.py
          tools/dist_train.sh configs/coco/maskrcnn_deit_b_3x.py 8
          python tools/test.py configs/coco/maskrcnn_deit_b_3x.py work_dirs/maskrcnn_deit_b_3x/epoch_36.pth
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-4; 36 epochs
Cost:     about 190 A100 hours (24 hours on 8), an estimate; docs/tasks/coco.md says how
Result:   not run
"""
_base_ = ['../_base_/maskrcnn.py', '../_base_/coco_3x.py']
experiment = dict(task='detection', model='DeiT-B', method='e2e')
model = dict(
    backbone=dict(
        arch='vit_base', out_indices=(11, ), global_blocks=(2, 5, 8, 11), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='pretrained/deit_base_patch16_224-b5f2ef4d.pth')),
    neck=dict(in_channels=768))
