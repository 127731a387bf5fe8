"""Check that COCO metrics are about the images and classes of their data set."""
from pathlib import Path

from mmengine.registry import METRICS

from mmincubation.config.signatures import resolve
from mmincubation.downstream.coco_truth import is_coco_metric, require_same_data
from mmincubation.errors import ConfigError
from mmincubation.recovery.data_errors import named_metrics

from .report import Report


def report_metrics(cfg, mode: str, dataset, report: Report) -> None:
    """Build the COCO metrics of a mode and compare them with its data set, as a run does before its first step."""
    settings, scope = cfg.get(f'{mode}_evaluator') or [], cfg.get('default_scope') or 'mmengine'
    for metric in [settings] if isinstance(settings, dict) else settings:
        path = metric.get('ann_file')
        kinds = [cls for _, cls in resolve(str(metric.get('type')), scope)]
        if not any(map(is_coco_metric, kinds)) or path and not Path(path).exists():  # the config's own problem
            continue
        try:
            built = METRICS.build(named_metrics(dict(metric, _scope_=metric.get('_scope_') or scope)))
            for line in require_same_data(dataset, built, mode):
                report.warn(line)
        except ConfigError as error:
            report.problem('', str(error), '')
