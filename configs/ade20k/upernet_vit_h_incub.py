"""UperNet on ADE20K from the incubated ViT-H (configs/imagenet/vit_h_incub.py).

Paper:    ADE20K table, UperNet 80k, ViT-H, Deep Incubation: mAcc / mIoU / multi-scale mIoU
          61.0 / 49.9 / 50.6*. * quoted
Run:      python tools/train.py configs/ade20k/upernet_vit_h_incub.py --cfg-options train_dataloader.batch_size=16
          tools/dist_train.sh configs/ade20k/upernet_vit_h_incub.py 8
          tools/dist_test.sh configs/ade20k/upernet_vit_h_incub.py work_dirs/upernet_vit_h_incub/iter_80000.pth 8
          (with --tta: multi-scale and flip)
Hardware: 8 GPUs x 2 images
Cost:     about 71 A100 hours, an estimate; docs/tasks/ade20k.md says how
Result:   not run
"""
_base_ = '../_base_/ade20k/upernet_vit_h.py'
experiment = dict(method='incub')
model = dict(backbone=dict(init_cfg=dict(
    type='Pretrained', checkpoint='work_dirs/vit_h_incub/weights/finetune_last.safetensors')))
