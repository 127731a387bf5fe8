"""Schedule of Deep Incubation: meta 300 epochs, each module 100, fine-tuning 100 without warm-up, clipped.

The leaf sets the stochastic depth of fine-tuning, and the shorter budgets of 25 + 25 and 50 + 50 epochs.
"""
train_cfg = dict(
    type='mmincubation.IncubationLoop',
    phases=dict(
        meta=dict(epochs=300, drop_path_rate=0.),
        module=dict(epochs=100, drop_path_rate=0.1),
        finetune=dict(
            epochs=100,
            optim_wrapper=dict(clip_grad=dict(max_norm=1.0)),
            param_scheduler=[
                dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)
            ])),
    val_interval=10)
