"""The phases with 25 epochs for each module and 25 of fine-tuning; the warm-up keeps its share of a fifth (ours)."""
_base_ = './incub.py'
train_cfg = dict(
    phases=dict(
        module=dict(
            epochs=25,
            param_scheduler=[
                dict(type='LinearLR', start_factor=1e-6 / 2e-3, by_epoch=True, convert_to_iter_based=True, end=5),
                dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=5)
            ]),
        finetune=dict(epochs=25)))
