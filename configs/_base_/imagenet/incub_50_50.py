"""The phases with 50 epochs for each module and 50 of fine-tuning; the warm-up keeps its share of a fifth (ours)."""
_base_ = './incub.py'
train_cfg = dict(
    phases=dict(
        module=dict(
            epochs=50,
            param_scheduler=[
                dict(type='LinearLR', start_factor=1e-6 / 2e-3, by_epoch=True, convert_to_iter_based=True, end=10),
                dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True, begin=10)
            ]),
        finetune=dict(epochs=50)))
