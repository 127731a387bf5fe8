"""Model: UperNet as mmseg ships it, on crops of 512. Reasons: docs/tasks/ade20k.md.

The leaf sets the ViT. The taps are the ends of the four modules of Deep Incubation.
"""
_norm_cfg = dict(type='SyncBN', requires_grad=True)
_crop_size = (512, 512)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255, size=_crop_size,
        test_cfg=dict(size_divisor=32)),  # two patches: the x0.5 level then covers the image exactly
    backbone=dict(
        type='mmincubation.ViTBackbone',
        window_size=0,
        cls_token=True,
        tap_norm=True,
        bf16=True),
    neck=dict(type='Feature2Pyramid', rescales=[4, 2, 1, 0.5], norm_cfg=_norm_cfg),
    decode_head=dict(
        type='UPerHead', in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=512, dropout_ratio=0.1,
        num_classes=150, norm_cfg=_norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    auxiliary_head=dict(
        type='FCNHead', in_index=2, channels=256, num_convs=1, concat_input=False, dropout_ratio=0.1, num_classes=150,
        norm_cfg=_norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=_crop_size, stride=(341, 341)))
