"""Average the weights exponentially over the steps, in runs with and without phases."""
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.hooks import EMAHook as StockEMAHook

from mmincubation.incubation.phases import FINETUNE
from mmincubation.registry import HOOKS
from mmincubation.resumable.protocol import loop_protocol


@HOOKS.register_module()
class EMAHook(StockEMAHook):
    """Run mmengine's EMAHook with the same arguments; in an IncubationLoop, average during fine-tuning only.

    mmengine's hook would average the weights of one phase with those of the next. It would also validate the assembled
    model with weights from before its modules were trained. Before the first averaged step there is no average:
    validation and checkpoints then use the model's own weights.
    """

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Update the average in fine-tuning and in runs without phases."""
        if self.averages_in(loop_protocol(runner).phase_name):
            self._leave_out_waiting()
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    @staticmethod
    def averages_in(phase: str | None) -> bool:
        """Return whether the hook averages in a phase; None stands for a run without phases."""
        return phase in (None, FINETUNE)

    def _leave_out_waiting(self) -> None:
        """Keep no average on the GPU of weights that wait on the CPU: they do not train, so it is themselves.

        The copy was made before the first phase, when all were on the GPU. Each step would copy them there.
        """
        own = dict(self.src_model.named_parameters())
        for name, average in self.ema_model.module.named_parameters():
            if own[name].is_cpu and not average.is_cpu:
                average.data = own[name].data.clone()
                self.ema_model.avg_parameters.pop(name, None)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Store the average as `state_dict` and the model's own weights as `ema_state_dict`."""
        if self.ema_model.steps:
            super().before_save_checkpoint(runner, checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the average of a resumed run, the inverse of `before_save_checkpoint`.

        A run that only starts from weights (`load_from`) begins its average with the first step.
        """
        if runner._resume and 'ema_state_dict' in checkpoint:
            super().after_load_checkpoint(runner, checkpoint)

    def _swap_ema_parameters(self) -> None:
        if self.ema_model.steps:
            super()._swap_ema_parameters()


@contextmanager
def averaged(runner) -> Iterator[None]:
    """Give the model the weights that validation measures while the context is open.

    These are the averaged weights if the run has an EMAHook, else the model's own.
    """
    hooks = [hook for hook in runner.hooks if isinstance(hook, StockEMAHook)]
    for hook in hooks:
        hook._swap_ema_parameters()
    try:
        yield
    finally:
        for hook in hooks:
            hook._swap_ema_parameters()
