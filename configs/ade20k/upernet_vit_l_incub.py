"""UperNet on ADE20K from the incubated ViT-L (vit_l_incub).

Row:   the paper's ADE20K table, UperNet 80k, ViT-L, Deep Incubation:
       mAcc / mIoU / multi-scale mIoU 60.8 / 49.2 / 50.0* (*quoted from the paper).
Run:   tools/dist_train.sh configs/ade20k/upernet_vit_l_incub.py 8
       python tools/train.py configs/ade20k/upernet_vit_l_incub.py --cfg-options train_dataloader.batch_size=16
       tools/dist_test.sh configs/ade20k/upernet_vit_l_incub.py work_dirs/upernet_vit_l_incub/iter_80000.pth 8 [--tta]
Cost:  8 GPUs x 2 images, about 44 A100 hours, estimated from FLOPs (docs/ade20k.md), not measured.
Result: not run
"""
_base_ = '../_base_/ade20k/upernet_vit_l.py'
experiment = dict(method='incub')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_l_incub/weights/finetune_last.safetensors')))
