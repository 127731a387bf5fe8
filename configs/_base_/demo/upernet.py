"""Stock UperNet, made small, on the embedded scenes (shown at 96 x 96; semantic masks); the backbone's weights are the leaf's."""
_base_ = ['../runtime.py', './schedule.py']
default_scope = 'mmseg'
experiment = dict(note='background everywhere would be mIoU 8')
norm_cfg = dict(type='BN')
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        seg_pad_val=255, size=(96, 96)),
    backbone=dict(
        type='mmincubation.ViTBackbone',
        arch=dict(embed_dim=64, depth=24, num_heads=2, patch_size=8, img_size=32),
        out_indices=(5, 11, 17, 23),
        window_size=0,
        cls_token=True,
        tap_norm=True),
    neck=dict(type='Feature2Pyramid', embed_dim=64, rescales=[2, 1, 0.5, 0.25], norm_cfg=norm_cfg),
    decode_head=dict(  # nine of ten pixels are background: learn from the hardest 1,500 of an image's 9,216
        type='UPerHead', in_channels=[64] * 4, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=64,
        sampler=dict(type='OHEMPixelSampler', min_kept=1500), dropout_ratio=0.1, num_classes=11, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=dict(
        type='FCNHead', in_channels=64, in_index=2, channels=64, num_convs=1, concat_input=False, dropout_ratio=0.1,
        sampler=dict(type='OHEMPixelSampler', min_kept=1500),
        num_classes=11, norm_cfg=norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))

data_root = 'data/demo/scenes/'
metainfo = dict(
    classes=('background', *'0123456789'),
    palette=[[60, 60, 60], [230, 25, 75], [60, 180, 75], [255, 225, 25], [0, 130, 200], [245, 130, 48], [145, 30, 180],
             [70, 240, 240], [240, 50, 230], [210, 245, 60], [250, 190, 212]])
train_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        reduce_zero_label=True,
        img_suffix='.png',
        data_prefix=dict(img_path='train/img', seg_map_path='train/seg'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='Resize', scale=(96, 96), keep_ratio=True),
            dict(type='PackSegInputs'),
        ]))
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='BaseSegDataset',
        data_root=data_root,
        metainfo=metainfo,
        reduce_zero_label=True,
        img_suffix='.png',
        data_prefix=dict(img_path='val/img', seg_map_path='val/seg'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(96, 96), keep_ratio=True),
            dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='PackSegInputs'),
        ]))
test_dataloader = val_dataloader
val_evaluator = dict(type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-3))
auto_scale_lr = dict(base_batch_size=8)
train_cfg = dict(type='IterBasedTrainLoop', max_iters=320, val_interval=320)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=320),
    visualization=dict(type='SegVisualizationHook', draw=True, interval=40))
visualizer = dict(type='SegLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')], alpha=0.6)
log_processor = dict(by_epoch=False)
