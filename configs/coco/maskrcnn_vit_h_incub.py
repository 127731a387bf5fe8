"""Mask R-CNN 1x (12 epochs) on COCO from a ViT-H incubated (configs/imagenet/vit_h_incub.py).

Paper:    COCO table, 1x, Deep Incubation: AP/AP50/AP75 box 45.7*/69.6*/50.3*, mask 41.8*/66.1*/44.7*.
          * quoted; the paper does not say of which ViT.
Run:      python tools/train.py configs/coco/maskrcnn_vit_h_incub.py
          tools/dist_train.sh configs/coco/maskrcnn_vit_h_incub.py 8
          python tools/test.py configs/coco/maskrcnn_vit_h_incub.py work_dirs/maskrcnn_vit_h_incub/epoch_12.pth
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-4; 12 epochs
Cost:     about 490 A100 hours (61 hours on 8), an estimate; docs/tasks/coco.md says how
Result:   not run
"""
_base_ = ['../_base_/maskrcnn.py', '../_base_/coco_1x.py']
experiment = dict(task='detection', model='ViT-H', method='incub')
model = dict(
    backbone=dict(
        # The weights have patches of 14; 16 makes strides of 4, 8, 16, 32. The kernel is resized on loading.
        arch=dict(name='vit_huge', patch_size=16, img_size=256), out_indices=(31, ),
        global_blocks=(7, 15, 23, 31), drop_path_rate=0.5, with_cp=True,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_h_incub/weights/finetune_last.safetensors')),
    neck=dict(in_channels=1280))
