"""What counts epochs in a loop over iterations, and so would never happen."""
from collections.abc import Iterator

from mmengine import hooks
from mmengine.config import Config
from mmengine.runner import IterBasedTrainLoop

from mmincubation.incubation.recipe import follows_score

from .hooks import hooks_of
from .signatures import resolve, several


def counting_problems(cfg: Config) -> Iterator[str]:
    """One line for each schedule and checkpoint that waits for epochs which do not come.

    mmengine's loop over iterations is one epoch long, whatever the data: what counts epochs acts when all is over.
    """
    if _counts_iterations(cfg):
        yield from _schedules(cfg)
        for place, hook, _ in hooks_of(cfg, hooks.CheckpointHook):
            if hook.get('by_epoch', True) and hook.get('interval', -1) > 0:
                yield f'{place}: it counts epochs, and a loop over iterations has one: nothing would be saved before ' \
                      'the end; write by_epoch=False, and interval in iterations'


def _counts_iterations(cfg: Config) -> bool:
    loop, scope = cfg.get('train_cfg') or {}, cfg.get('default_scope') or 'mmengine'
    if 'type' not in loop:
        return not loop.get('by_epoch', True)
    kinds = [kind for _, kind in resolve(loop['type'], scope)] if isinstance(loop['type'], str) else [loop['type']]
    return any(isinstance(kind, type) and issubclass(kind, IterBasedTrainLoop) for kind in kinds)


def _schedules(cfg: Config) -> Iterator[str]:
    for i, schedule in enumerate(several(cfg.get('param_scheduler') or None)):
        kind = str(schedule.get('type'))
        counts = 'type' in schedule and schedule.get('by_epoch', True) and not schedule.get('convert_to_iter_based')
        if counts and not follows_score(schedule):  # that one counts validations
            yield f'param_scheduler.{i}: {kind} counts epochs, and a loop over iterations has one: it would change ' \
                  'nothing; write by_epoch=False, and begin, end and milestones in iterations'
