_base_ = ['./vit_demo_e2e.py']
experiment = dict(method='incub')
arch = dict(dim=64, depth=24, heads=2, patch_size=8, img_size=32, num_classes=10)
model = dict(_delete_=True, type='mmincubation.IncubationModel', arch=arch, modules=4)
train_cfg = dict(
    _delete_=True,
    type='mmincubation.IncubationLoop',
    start='grow',
    phases=dict(
        meta=dict(epochs=12),
        module=dict(epochs=2),
        finetune=dict(epochs=3)),
    val_interval=12)
