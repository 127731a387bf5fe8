"""maskrcnn_vit_b_incub.py with the stronger heads of ViTDet: comparable with no other row.

Paper:    no row; ours. RPN with 2 convolutions, box head with 4 convolutions and 1 layer, LayerNorm in both RoI heads.
Run:      python tools/train.py configs/coco/maskrcnn_vit_b_incub_strong_head.py
          tools/dist_train.sh configs/coco/maskrcnn_vit_b_incub_strong_head.py 8
          python tools/test.py configs/coco/maskrcnn_vit_b_incub_strong_head.py work_dirs/maskrcnn_vit_b_incub_strong_head/epoch_12.pth
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-4; 12 epochs
Cost:     about 110 A100 hours (14 hours on 8), an estimate; docs/tasks/coco.md says how
Result:   not run
"""
_base_ = ['../_base_/maskrcnn.py', '../_base_/coco_1x.py']
experiment = dict(
    task='detection', model='ViT-B-strong-head', method='incub', note='ViTDet heads: not comparable with stock heads')
_norm = dict(type='timm.layers.LayerNorm2d', eps=1e-6)
model = dict(
    backbone=dict(
        arch='vit_base', out_indices=(11, ), global_blocks=(2, 5, 8, 11), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_b_incub/weights/finetune_last.safetensors')),
    neck=dict(in_channels=768),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', conv_out_channels=256, norm_cfg=_norm),
        mask_head=dict(norm_cfg=_norm)))
