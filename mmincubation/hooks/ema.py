"""Exponential moving average of the weights, in runs with and without phases."""
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import EMAHook as StockEMAHook

from mmincubation.incubation.phases import FINETUNE
from mmincubation.registry import HOOKS
from mmincubation.resumable.protocol import loop_protocol


@HOOKS.register_module()
class EMAHook(StockEMAHook):
    """mmengine's EMAHook, with its arguments; in an IncubationLoop it averages fine-tuning alone.

    mmengine's would average one phase's weights with another's, and measure the assembled model with weights from
    before its modules were trained. Here there is no average before the first step that is averaged: validation and
    checkpoints then have the model's own weights.
    """

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Average, but not in other phases."""
        if loop_protocol(runner).phase_name in (None, FINETUNE):
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """The average becomes `state_dict`, the model's own weights go into `ema_state_dict`."""
        if self.ema_model.steps:
            super().before_save_checkpoint(runner, checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Inverse of `before_save_checkpoint`; the average of weights to start from begins with the first step."""
        if runner._resume and 'ema_state_dict' in checkpoint:
            super().after_load_checkpoint(runner, checkpoint)

    def _swap_ema_parameters(self) -> None:
        if self.ema_model.steps:
            super()._swap_ema_parameters()


@contextmanager
def averaged(runner) -> Iterator[None]:
    """Inside, the model has the weights that validation measures: the average's, where an EMAHook averages."""
    hooks = [hook for hook in runner.hooks if isinstance(hook, StockEMAHook)]
    for hook in hooks:
        hook._swap_ema_parameters()
    try:
        yield
    finally:
        for hook in hooks:
            hook._swap_ema_parameters()
