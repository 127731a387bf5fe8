"""A linear head on ADE20K, on frozen features of the ViT-B trained end to end (configs/imagenet/vit_b_e2e.py).

Paper:    no row, this one is ours; the schedule is that of DINOv2's linear evaluation
Run:      python tools/train.py configs/ade20k/linear_vit_b_e2e.py --cfg-options train_dataloader.batch_size=16
          tools/dist_train.sh configs/ade20k/linear_vit_b_e2e.py 8
Batch:    16 = 8 GPUs x 2; AdamW, lr 1e-3; 40,000 iterations
Cost:     about 2 A100 hours, an estimate: 640,000 images forward, validation beside it
Result:   not run
"""
_base_ = ['../_base_/linear_seg.py', '../_base_/ade20k.py']
experiment = dict(task='segmentation', model='ViT-B-linear', method='e2e')
model = dict(
    backbone=dict(
        arch='vit_base', out_indices=(11, ),
        init_cfg=dict(type='Pretrained', checkpoint='work_dirs/vit_b_e2e/weights/e2e_last.safetensors')),
    decode_head=dict(in_channels=768))
optim_wrapper = dict(optimizer=dict(lr=1e-3, weight_decay=1e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type='PolyLR', power=1.0, eta_min=0.0, by_epoch=False, begin=1500, end=40000),
]
train_cfg = dict(max_iters=40000)
