"""UperNet on ADE20K from the incubated ViT-B (configs/imagenet/vit_b_incub.py).

Paper:    no row, this one is ours; from public DeiT-B, end to end too, about 45-46* mIoU single scale is to be
          expected. * quoted
Run:      python tools/train.py configs/ade20k/upernet_vit_b_incub.py --cfg-options train_dataloader.batch_size=16
          tools/dist_train.sh configs/ade20k/upernet_vit_b_incub.py 8
          tools/dist_test.sh configs/ade20k/upernet_vit_b_incub.py work_dirs/upernet_vit_b_incub/iter_80000.pth 8
          (with --tta: multi-scale and flip)
Batch:    16 = 8 GPUs x 2; AdamW, lr 6e-5; 80,000 iterations
Cost:     about 24 A100 hours, an estimate; docs/tasks/ade20k.md says how
Result:   not run
"""
_base_ = ['../_base_/upernet.py', '../_base_/ade20k.py']
experiment = dict(task='segmentation', model='ViT-B', method='incub')
model = dict(
    backbone=dict(
        arch='vit_base', out_indices=(2, 5, 8, 11), drop_path_rate=0.1,
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_b_incub/weights/finetune_last.safetensors')),
    neck=dict(embed_dim=768),
    decode_head=dict(in_channels=[768] * 4),
    auxiliary_head=dict(in_channels=768))
optim_wrapper = dict(optimizer=dict(lr=6e-5, weight_decay=0.01))
