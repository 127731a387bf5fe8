"""UperNet on ADE20K from the incubated ViT-L (configs/imagenet/vit_l_incub.py).

Paper:    ADE20K table, UperNet 80k, ViT-L, Deep Incubation: mAcc / mIoU / multi-scale mIoU
          60.8 / 49.2 / 50.0*. * quoted
Run:      python tools/train.py configs/ade20k/upernet_vit_l_incub.py --cfg-options train_dataloader.batch_size=16
          tools/dist_train.sh configs/ade20k/upernet_vit_l_incub.py 8
          tools/dist_test.sh configs/ade20k/upernet_vit_l_incub.py work_dirs/upernet_vit_l_incub/iter_80000.pth 8
          (with --tta: multi-scale and flip)
Hardware: 8 GPUs x 2 images
Cost:     about 44 A100 hours, an estimate; docs/tasks/ade20k.md says how
Result:   not run
"""
_base_ = '../_base_/ade20k/upernet_vit_l.py'
experiment = dict(method='incub')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_l_incub/weights/finetune_last.safetensors')))
