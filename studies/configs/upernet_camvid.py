"""UperNet on street scenes (CamVid, 11 classes) at 240 x 180, the backbone a ViT of studies/tiny.py or random weights.

Paper:    no row; the study of docs/study.md
Run:      python tools/train.py studies/configs/upernet_camvid.py
Batch:    4 = 1 CPU x 4; AdamW, lr 1e-3; 400 iterations
Result:   docs/study.md
"""
_base_ = ['../../configs/_base_/demo_upernet.py', '../../configs/_base_/demo_segmentation.py']
experiment = dict(task='segmentation', model='ViT-24 w32', method='scratch', data='CamVid', note='void is not scored')
void = 11  # neither learnt nor scored
data_root = 'data/camvid'
metainfo = dict(
    classes=('sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist'),
    palette=[[128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
             [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192]])
_crop = (160, 160)
_dataset = dict(data_root=data_root, metainfo=metainfo, reduce_zero_label=False, img_suffix='.jpg', ignore_index=void)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        **_dataset, data_prefix=dict(img_path='images/train', seg_map_path='annotations/train'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(type='RandomResize', scale=(240, 180), ratio_range=(0.9, 1.5), keep_ratio=True),
            dict(type='RandomCrop', crop_size=_crop),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackSegInputs'),
        ]))
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(240, 180), keep_ratio=True),
    dict(type='LoadAnnotations'),  # after Resize: the truth keeps its size
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(
    **_dataset, data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'), pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ignore_index=void)
test_evaluator = val_evaluator
train_cfg = dict(max_iters=400, val_interval=400)
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(checkpoint=dict(interval=100), visualization=dict(draw=False))
model = dict(
    # Four patches of 8: the coarsest level of the neck is a quarter of the patches.
    data_preprocessor=dict(size=_crop, seg_pad_val=void, test_cfg=dict(size_divisor=32)),
    backbone=dict(arch=dict(embed_dim=32, num_heads=1)),
    neck=dict(embed_dim=32),
    decode_head=dict(in_channels=[32] * 4, num_classes=11, ignore_index=void, sampler=None),
    auxiliary_head=dict(in_channels=32, num_classes=11, ignore_index=void, sampler=None))
