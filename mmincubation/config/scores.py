"""What watches a score that the validation does not give, which would fail at the first validation."""
from collections.abc import Iterator

from mmengine import hooks
from mmengine.config import Config

from mmincubation.incubation.recipe import follows_score

from .hooks import hooks_of
from .signatures import resolve, setting, several

BEST_WEIGHTS = 'WeightsHook'  # in hooks/, a package below this one
COCO_ITEMS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')
IOU_SCORES = dict(mIoU=('mIoU', 'mAcc'), mDice=('mDice', 'mAcc'), mFscore=('mFscore', 'mPrecision', 'mRecall'))


def score_problems(cfg: Config) -> Iterator[str]:
    """One line for each score that a hook or schedule watches and no evaluator of the config gives.

    The names are known of mmdet's CocoMetric, mmseg's IoUMetric and ours; of other metrics the prefix alone.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    metrics = [_metric(one, scope) for one in several(cfg.get('val_evaluator') or None)]
    if not metrics:
        return
    for place, name in _watched(cfg, scope):
        if all(scores for _, scores in metrics):
            names = [name for _, scores in metrics for name in scores]
            if name not in names:
                yield f'{place}={name}: the validation gives no such score; it gives {", ".join(dict.fromkeys(names))}'
        elif '/' not in name and all(prefix for prefix, _ in metrics):
            full = ' or '.join(dict.fromkeys(f'{prefix}/{name}' for prefix, _ in metrics))
            yield f'{place}={name}: scores are named with their metric; write {full}'


def _watched(cfg: Config, scope: str) -> Iterator[tuple[str, str]]:
    """Yield (key, score) of the best checkpoint, best weights, early stops and schedules that follow a score."""
    for place, hook, _ in hooks_of(cfg, hooks.CheckpointHook):
        names = several(hook.get('save_best') or None)
        yield from ((f'{place}.save_best', name) for name in names if name != 'auto')
    found = [(place, 'monitor', hook) for place, hook, _ in hooks_of(cfg, hooks.EarlyStoppingHook)]
    found += [(place, 'metric', hook) for place, hook, cls in hooks_of(cfg, hooks.Hook) if cls.__name__ == BEST_WEIGHTS]
    found += [(f'param_scheduler.{i}', 'monitor', schedule)
              for i, schedule in enumerate(several(cfg.get('param_scheduler') or None))
              if follows_score(schedule) and schedule.get('by_epoch', True)]
    for place, key, node in found:
        if isinstance(name := setting(node, key, scope), str):
            yield f'{place}.{key}', name


def _metric(evaluator: dict, scope: str) -> tuple[str | None, list[str]]:
    """Return the prefix of a metric's scores and their full names; None and [] where they are not known."""
    name = evaluator.get('type')
    kinds = [cls for kind, cls in resolve(name, scope) if kind in ('metric', '')] if isinstance(name, str) else []
    if len(kinds) != 1:
        return None, []
    prefix = evaluator.get('prefix') or getattr(kinds[0], 'default_prefix', None)
    names = _names(kinds[0].__name__, lambda key: setting(evaluator, key, scope))
    return prefix, [f'{prefix}/{name}' if prefix else name for name in names]


def _names(kind: str, value) -> list[str]:
    """Return the scores of a kind of metric; `value` gives a setting of it. [] if they are not known."""
    if kind == 'Accuracy':
        places = several(value('topk'))
        return [f'top{k}' for k in places if type(k) is int and k > 0]  # others the metric refuses
    if kind == 'IoUMetric':
        asked = several(value('iou_metrics'))
        known = set(asked) <= IOU_SCORES.keys() and not value('format_only')
        return ['aAcc', *(name for metric in asked for name in IOU_SCORES[metric])] if known else []
    asked = several(value('metric')) if kind in ('CocoMetric', 'NamedCocoMetric', 'FastCocoMetric') else []
    if not set(asked) <= {'bbox', 'segm'} or value('classwise') or value('format_only'):
        return []  # the names of classes and of proposals are not known here
    return [f'{metric}_{item}' for metric in asked for item in value('metric_items') or COCO_ITEMS]
