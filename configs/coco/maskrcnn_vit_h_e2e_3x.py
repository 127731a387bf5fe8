"""Mask R-CNN 3x (36 epochs) on COCO from a ViT-H trained end to end (configs/imagenet/vit_h_e2e.py).

Paper:    COCO table, 3x, end to end: AP/AP50/AP75 box 47.0*/69.3*/51.3*, mask 42.1*/66.2*/45.2*.
          * quoted; the paper does not say of which ViT.
Run:      python tools/train.py configs/coco/maskrcnn_vit_h_e2e_3x.py
          tools/dist_train.sh configs/coco/maskrcnn_vit_h_e2e_3x.py 8
          python tools/test.py configs/coco/maskrcnn_vit_h_e2e_3x.py work_dirs/maskrcnn_vit_h_e2e_3x/epoch_36.pth
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-4; 36 epochs
Cost:     about 890 A100 hours (111 hours on 8), an estimate; docs/tasks/coco.md says how
Result:   not run
"""
_base_ = ['../_base_/maskrcnn.py', '../_base_/coco_3x.py']
experiment = dict(task='detection', model='ViT-H-3x', method='e2e')
model = dict(
    backbone=dict(
        # The weights have patches of 14; 16 makes strides of 4, 8, 16, 32. The kernel is resized on loading.
        arch=dict(name='vit_huge', patch_size=16, img_size=256), out_indices=(31, ),
        global_blocks=(7, 15, 23, 31), drop_path_rate=0.5, with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_h_e2e/weights/e2e_last.safetensors')),
    neck=dict(in_channels=1280))
