"""Check that COCO metrics are about the images and classes of their data set."""
from pathlib import Path

from mmengine.registry import METRICS

from mmincubation.config.signatures import resolve
from mmincubation.downstream.coco_truth import require_same_data
from mmincubation.errors import ConfigError
from mmincubation.recovery.data_errors import named_metrics

from .report import Report


def report_metrics(cfg, mode: str, dataset, report: Report) -> None:
    """Build the COCO metrics of a mode and compare them with its data set, as a run does before its first step."""
    settings, scope = cfg.get(f'{mode}_evaluator') or [], cfg.get('default_scope') or 'mmengine'
    for metric in [settings] if isinstance(settings, dict) else settings:
        path = metric.get('ann_file')
        if not is_coco(metric, scope) or path and not Path(path).exists():  # a path is the config's own problem
            continue
        try:
            built = METRICS.build(named_metrics(dict(metric, _scope_=metric.get('_scope_') or scope)))
            for line in require_same_data(dataset, built, mode):
                report.say(f'warning: {line}')
        except ConfigError as error:
            report.problem('', str(error), '')


def is_coco(metric: dict, scope: str) -> bool:
    """Return whether a config names mmdet's CocoMetric or a metric made of it."""
    found = resolve(str(metric.get('type')), scope)
    return any(base.__name__ == 'CocoMetric' for _, cls in found for base in getattr(cls, '__mro__', ()))
