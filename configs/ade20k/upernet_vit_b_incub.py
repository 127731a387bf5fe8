"""UperNet on ADE20K from the incubated ViT-B (vit_b_incub).

Row:   ours; no row in the paper, which has ViT-L and ViT-H. From public DeiT-B, end to end too, about 45-46* mIoU
       (single scale) is to be expected (*quoted, not ours).
Run:   tools/dist_train.sh configs/ade20k/upernet_vit_b_incub.py 8
       python tools/train.py configs/ade20k/upernet_vit_b_incub.py --cfg-options train_dataloader.batch_size=16
       tools/dist_test.sh configs/ade20k/upernet_vit_b_incub.py work_dirs/upernet_vit_b_incub/iter_80000.pth 8 [--tta]
Cost:  8 GPUs x 2 images, about 24 A100 hours, estimated from FLOPs (docs/ade20k.md), not measured.
Result: not run
"""
_base_ = '../_base_/ade20k/upernet_vit_b.py'
experiment = dict(method='incub')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_b_incub/weights/finetune_last.safetensors')))
