"""UperNet on ADE20K from the incubated ViT-H (configs/imagenet/vit_h_incub.py).

Paper:    ADE20K table, UperNet 80k, ViT-H, Deep Incubation: mAcc / mIoU / multi-scale mIoU
          61.0 / 49.9 / 50.6*. * quoted
Run:      python tools/train.py configs/ade20k/upernet_vit_h_incub.py --cfg-options train_dataloader.batch_size=16
          tools/dist_train.sh configs/ade20k/upernet_vit_h_incub.py 8
          tools/dist_test.sh configs/ade20k/upernet_vit_h_incub.py work_dirs/upernet_vit_h_incub/iter_80000.pth 8
          (with --tta: multi-scale and flip)
Batch:    16 = 8 GPUs x 2; AdamW, lr 4e-5; 80,000 iterations
Cost:     about 71 A100 hours, an estimate; docs/tasks/ade20k.md says how
Result:   not run
"""
_base_ = ['../_base_/upernet.py', '../_base_/ade20k.py']
experiment = dict(task='segmentation', model='ViT-H', method='incub')
model = dict(
    backbone=dict(
        # The weights have 16 x 16 patches of 14; here they are 16, as on COCO. The kernel is resized on loading.
        arch=dict(name='vit_huge', patch_size=16, img_size=256), out_indices=(7, 15, 23, 31), drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_h_incub/weights/finetune_last.safetensors')),
    neck=dict(embed_dim=1280),
    decode_head=dict(in_channels=[1280] * 4),
    auxiliary_head=dict(in_channels=1280))
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=0.05))
