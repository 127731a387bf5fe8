"""Write the trained weights of each phase."""
from pathlib import Path

from mmengine.dist import is_main_process

from mmincubation.checkpoints import write_tensors
from mmincubation.incubation.phases import ASSEMBLED
from mmincubation.registry import HOOKS
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import gather_full, unwrap

from .ema import averaged
from .monitors import require_metric


@HOOKS.register_module()
class WeightsHook(BaseHook):
    """Write the trained weights with timm's names to `<work_dir>/weights/<phase>_{last,best}.safetensors`.

    `last` is written at the end of a phase, `best` after each validation that improves `metric` (higher is better).
    Where an EMAHook averages, the files hold the averaged weights.
    """
    priority = 'LOW'

    def __init__(self, metric: str = 'accuracy/top1'):
        self.metric = metric
        self.best: dict[str, float] = {}

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Write `best` if the metric has improved.

        Raises:
            ConfigError: the validation does not give the metric.
        """
        phase = loop_protocol(runner).phase_name or 'e2e'
        if phase == ASSEMBLED or not metrics:
            return
        require_metric('WeightsHook.metric', self.metric, metrics)
        if metrics[self.metric] > self.best.get(phase, float('-inf')):
            self.best[phase] = metrics[self.metric]
            self._write(runner, 'best')

    def after_phase(self, runner) -> None:
        """Write `last`; the IncubationLoop calls this."""
        self._write(runner, 'last')

    def after_train(self, runner) -> None:
        """Write `last` if the loop has no phases."""
        if loop_protocol(runner).phase_name is None:
            self._write(runner, 'last')

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the best scores into the checkpoint."""
        checkpoint['weights_hook'] = dict(self.best)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the best scores of a resumed run; weights of another run (`load_from`) bring none."""
        if runner._resume:
            self.best = dict(checkpoint.get('weights_hook', {}))

    def _write(self, runner, which: str) -> None:
        folder = loop_protocol(runner).weights_dir or Path(runner.work_dir) / 'weights'
        with averaged(runner):
            name, tensors, header = unwrap(runner.model).export()
            tensors = gather_full(tensors)  # collective: every rank must call it
            if is_main_process():
                write_tensors(Path(folder) / f'{name}_{which}.safetensors', tensors, header)
