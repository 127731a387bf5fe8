"""Step schedules that follow a score once a validation's checkpoints are written."""
from mmengine import hooks

from mmincubation.incubation.phases import ASSEMBLED
from mmincubation.resumable.protocol import loop_protocol


class ParamSchedulerHook(hooks.ParamSchedulerHook):
    """Step schedules as mmengine's hook does, but those that follow a score at the very end of the validation.

    A run that resumes from a checkpoint that was written in a validation validates again, and so steps them again:
    that checkpoint must have them as they were before. As early stopping, they begin anew with fine-tuning: the score
    of the assembled model does not count. The tools put this hook in the place of mmengine's.
    """

    def after_val_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Keep the scores for `after_val`."""
        self._metrics = metrics

    def after_val(self, runner) -> None:
        """Step, unless training ends here."""
        ended = getattr(runner.train_loop, 'stop_training', False)
        if not ended and loop_protocol(runner).phase_name != ASSEMBLED:
            super().after_val_epoch(runner, self._metrics)
