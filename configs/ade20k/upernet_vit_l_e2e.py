"""UperNet on ADE20K from the ViT-L trained end to end (vit_l_e2e).

Row:   the paper's ADE20K table, UperNet 80k, ViT-L, E2E:
       mAcc / mIoU / multi-scale mIoU 58.5 / 47.0 / 47.8* (*quoted from the paper).
Run:   tools/dist_train.sh configs/ade20k/upernet_vit_l_e2e.py 8
       python tools/train.py configs/ade20k/upernet_vit_l_e2e.py --cfg-options train_dataloader.batch_size=16
       tools/dist_test.sh configs/ade20k/upernet_vit_l_e2e.py work_dirs/upernet_vit_l_e2e/iter_80000.pth 8 [--tta]
Cost:  8 GPUs x 2 images, about 44 A100 hours, estimated from FLOPs (docs/ade20k.md), not measured.
Result: not run
"""
_base_ = '../_base_/ade20k/upernet_vit_l.py'
experiment = dict(method='e2e')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_l_e2e/weights/e2e_last.safetensors')))
