"""Model: a linear head on the last map of a frozen ViT, on crops of 512, much as DINOv2 evaluates. The leaf sets the ViT.

The map is normalised at each place, as by DINOv2's last LayerNorm. Here that norm is a new one, not the file's: the
head's BatchNorm undoes the scale and shift of each channel, in which alone they differ.
"""
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True,
        pad_val=0, seg_pad_val=255, size=(512, 512),
        test_cfg=dict(size_divisor=16)),  # a patch: the map then covers the image exactly
    backbone=dict(
        type='mmincubation.ViTBackbone', window_size=0, cls_token=True, tap_norm=True, bf16=True, frozen=True),
    decode_head=dict(
        type='mmincubation.LinearHead', num_classes=150, norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False, loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)),
    train_cfg=dict(),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)))
