"""UperNet on ADE20K from the incubated ViT-L (configs/imagenet/vit_l_incub.py).

Paper:    ADE20K table, UperNet 80k, ViT-L, Deep Incubation: mAcc / mIoU / multi-scale mIoU
          60.8 / 49.2 / 50.0*. * quoted
Run:      python tools/train.py configs/ade20k/upernet_vit_l_incub.py --cfg-options train_dataloader.batch_size=16
          tools/dist_train.sh configs/ade20k/upernet_vit_l_incub.py 8
          tools/dist_test.sh configs/ade20k/upernet_vit_l_incub.py work_dirs/upernet_vit_l_incub/iter_80000.pth 8
          (with --tta: multi-scale and flip)
Batch:    16 = 8 GPUs x 2; AdamW, lr 4e-5; 80,000 iterations
Cost:     about 44 A100 hours, an estimate; docs/tasks/ade20k.md says how
Result:   not run
"""
_base_ = ['../_base_/upernet.py', '../_base_/ade20k.py']
experiment = dict(task='segmentation', model='ViT-L', method='incub')
model = dict(
    backbone=dict(
        arch='vit_large', out_indices=(5, 11, 17, 23), drop_path_rate=0.4,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_l_incub/weights/finetune_last.safetensors')),
    neck=dict(embed_dim=1024),
    decode_head=dict(in_channels=[1024] * 4),
    auxiliary_head=dict(in_channels=1024))
optim_wrapper = dict(optimizer=dict(lr=4e-5, weight_decay=0.05))
