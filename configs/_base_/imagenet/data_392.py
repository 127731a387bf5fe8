"""ImageNet-1K at 392: as at 224, the crops larger."""
_base_ = './data_224.py'
train_dataloader = dict(
    batch_size=32,
    dataset=dict(
        pipeline=[
            dict(
                type='mmincubation.create_transform', input_size=392, is_training=True, interpolation='bicubic',
                auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4, normalize=False)
        ]))
val_dataloader = dict(
    batch_size=64,
    dataset=dict(
        pipeline=[
            dict(
                type='timm.data.create_transform', input_size=392, is_training=False, interpolation='bicubic',
                crop_pct=0.875, normalize=False)
        ]))
test_dataloader = val_dataloader
