"""Refuse a metric to watch that the validation does not give."""
from collections.abc import Iterator

from mmengine.hooks import EarlyStoppingHook
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler

from mmincubation.errors import ConfigError
from mmincubation.resumable.protocol import BaseHook


class MonitorGuard(BaseHook):
    """Stop a run at its first validation if an EarlyStoppingHook or ReduceOnPlateauLR watches what is not measured.

    mmengine's hook would warn at each validation and never stop the run, its scheduler would raise a KeyError. The
    tools add this hook to every run; the CheckpointHook does the same for `save_best`.
    """
    priority = 'HIGHEST'  # before those that watch

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Raise ConfigError if a watched metric is missing."""
        for place, key in watched(runner):
            require_metric(f'{place}.monitor', key, metrics)


def require_metric(place: str, key: str, metrics: dict[str, float] | None) -> None:
    """Raise ConfigError if a validation does not give the metric that `place` names."""
    if key not in (metrics or {}):
        given = f'gives {", ".join(metrics)}' if metrics else 'gives no metric at all'
        raise ConfigError(f'{place}={key!r}: the validation {given}; correct it, then --resume --allow-changed goes on '
                          'from the last checkpoint')


def watched(runner) -> Iterator[tuple[str, str]]:
    """Yield (who watches, the metric) for each early stop and each schedule that follows a metric."""
    for hook in runner.hooks:
        if isinstance(hook, EarlyStoppingHook):
            yield type(hook).__name__, hook.monitor
    schedulers = runner.param_schedulers or []
    groups = schedulers.values() if isinstance(schedulers, dict) else [schedulers]
    for scheduler in (one for group in groups for one in group):
        if isinstance(scheduler, ReduceOnPlateauParamScheduler) and scheduler.by_epoch:
            yield type(scheduler).__name__, scheduler.monitor
