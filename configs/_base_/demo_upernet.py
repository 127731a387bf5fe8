"""Model: stock UperNet, made small, on the demo's ViT. The leaf sets the weights of the backbone."""
_norm_cfg = dict(type='BN')
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
    neck=dict(type='Feature2Pyramid', embed_dim=64, rescales=[2, 1, 0.5, 0.25], norm_cfg=_norm_cfg),
    decode_head=dict(  # nine of ten pixels are background: learn from the hardest 1,500 of an image's 9,216
        type='UPerHead', in_channels=[64] * 4, in_index=[0, 1, 2, 3], pool_scales=(1, 2, 3, 6), channels=64,
        sampler=dict(type='OHEMPixelSampler', min_kept=1500), dropout_ratio=0.1,
        num_classes=11, norm_cfg=_norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=dict(
        type='FCNHead', in_channels=64, in_index=2, channels=64, num_convs=1, concat_input=False, dropout_ratio=0.1,
        sampler=dict(type='OHEMPixelSampler', min_kept=1500),
        num_classes=11, norm_cfg=_norm_cfg, align_corners=False,
        loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4)),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'))
