"""What tools/test.py writes beside the metrics, and test-time augmentation: changes of the config, on any data sets."""
import os
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmincubation.config.signatures import accepted, resolve
from mmincubation.datasets.files import common_folder
from mmincubation.errors import ConfigError
from mmincubation.registry import kind_of, leaf_datasets


def use_tta(cfg: Config, path: str) -> None:
    """Turn on test-time augmentation as the config at `path` defines it.

    Raises:
        ConfigError: the config defines none.
    """
    if cfg.get('tta_model') is None or cfg.get('tta_pipeline') is None:
        raise ConfigError(f'{path} defines no tta_model and tta_pipeline: drop --tta, or add them')
    for _, leaf in leaf_datasets(cfg.test_dataloader.dataset):
        leaf['pipeline'] = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def dump(cfg: Config, path: str) -> None:
    """Write the predictions to a pickle as well.

    Raises:
        ConfigError: the name does not end as a pickle's, or nothing can be written there.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise ConfigError(f'--out {path}: predictions are written as a pickle; give a name that ends in .pkl')
    kind = 'mmdet.DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'mmengine.DumpResults'
    metric = ConfigDict(type=kind, out_file_path=writable('--out', path))
    if _has_prefixes(cfg.test_evaluator):
        raise ConfigError(f'--out: {cfg.test_evaluator.type} gives each data set a metric of its own, and none to all '
                          'predictions; drop --out, or add a mmengine.DumpResults for each')
    if 'metrics' in cfg.test_evaluator:
        cfg.test_evaluator.metrics = [*_metrics(cfg.test_evaluator), metric]
    else:
        cfg.test_evaluator = [*_metrics(cfg.test_evaluator), metric]


def format_only(cfg: Config, where: str) -> None:
    """Make the metrics write the predictions in the format of a test server instead of scoring them.

    `where` is a prefix (COCO) or a folder (label pictures). The ground truth is not read. Metrics that only score are
    left out.

    Raises:
        ConfigError: no metric of the config can write predictions, or the data set has no pipeline.
    """
    evaluator, scope = cfg.test_evaluator, cfg.get('default_scope') or 'mmengine'
    prefixes = evaluator.get('dataset_prefixes') if _has_prefixes(evaluator) else None
    metrics = _metrics(evaluator)
    targets = [f'{where}.{prefix}' for prefix in prefixes] if prefixes else [where] * len(metrics)
    found = [_writer(metric, scope, cfg, target) for metric, target in zip(metrics, targets, strict=False)]
    kept = [metric for metric in found if metric is not None]
    if not any(metric.get('format_only') or 'LabelPictures' in metric.type for metric in kept) or prefixes and (
            len(kept) < len(metrics)):
        kinds = ', '.join(str(metric.get('type')) for metric in metrics)
        raise ConfigError(f'--format-only: {kinds} writes no predictions; the metrics of detection (FastCocoMetric, '
                          'CocoMetric) and segmentation (IoUMetric) do')
    if 'metrics' in evaluator:
        evaluator['metrics'] = kept
    else:
        cfg.test_evaluator = kept
    for _, leaf in leaf_datasets(cfg.test_dataloader.dataset):
        if not isinstance(leaf.get('pipeline'), list):
            raise ConfigError(f'--format-only: {leaf.type} in test_dataloader.dataset has no list of steps, '
                              '`pipeline`, to load images by')
        leaf['pipeline'] = without_truth(leaf['pipeline'])
        if isinstance(leaf.get('data_prefix'), dict):
            leaf['data_prefix'].pop('seg_map_path', None)


def draw(cfg: Config, show_dir: str) -> None:
    """Draw each test image with its prediction, beside the ground truth if there is one, into `show_dir`.

    Pictures have the folders and names of the images, of any task. The config's own hook draws none.

    Raises:
        ConfigError: nothing can be written there.
    """
    hook = (cfg.get('default_hooks') or {}).get('visualization') or {}
    hook |= dict(draw=False) if 'draw' in hook else {}
    threshold = dict(score_thr=hook['score_thr']) if 'score_thr' in hook else {}
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), ConfigDict(
        type='mmincubation.TestPicturesHook', out_dir=writable('--show-dir', show_dir, folder=True),
        images=common_folder(cfg.test_dataloader.dataset), **threshold)]


def writable(option: str, path: str, folder: bool = False) -> str:
    """Return the absolute path of a file (or folder) that can be written; its parents need not exist.

    Raises:
        ConfigError: it cannot.
    """
    target = Path(os.path.abspath(os.path.expanduser(path)))
    if target.exists() and target.is_dir() != folder:
        raise ConfigError(f'{option} {path}: is a {"file, give a folder" if folder else "folder, give a file"}')
    there = next(p for p in (target, *target.parents) if p.exists())
    if there != target and not there.is_dir():
        raise ConfigError(f'{option} {path}: {there} is a file, not a folder')
    if not os.access(there, os.W_OK):
        raise ConfigError(f'{option} {path}: {there} cannot be written; give another place')
    return str(target)


def _has_prefixes(evaluator) -> bool:
    """Whether it is mmdet's MultiDatasetsEvaluator, with a metric for each of several data sets."""
    return isinstance(evaluator, dict) and 'dataset_prefixes' in evaluator


def _metrics(evaluator) -> list[ConfigDict]:
    """Return the metrics of an evaluator: a metric, a list of them, or a dict with `metrics`."""
    metrics = evaluator.get('metrics', evaluator) if isinstance(evaluator, dict) else evaluator
    return list(metrics) if isinstance(metrics, list | tuple) else [metrics]


def _writer(metric: ConfigDict, scope: str, cfg: Config, where: str) -> ConfigDict | None:
    """Return a metric set to write what the model predicts, and not to score it; None if it can only score."""
    classes = [cls for _, cls in resolve(str(metric.get('type')), scope)]
    keys = {key for cls in classes for key in accepted(cls)[0]}
    if any(base.__name__ == 'IoUMetric' for cls in classes for base in getattr(cls, '__mro__', ())):
        return ConfigDict(type='mmincubation.LabelPictures', output_dir=writable('--format-only', where, folder=True),
                          images=common_folder(cfg.test_dataloader.dataset))
    if {'format_only', 'outfile_prefix'} <= keys:
        if 'ann_file' in keys and not metric.get('ann_file'):
            raise ConfigError(f'--format-only: {metric.type} has no ann_file, which names images and categories; set '
                              "it to the test data's file (annotations are not needed)")
        prefix = os.path.join(where, 'predictions') if os.path.isdir(where) or where.endswith(os.sep) else where
        return ConfigDict(metric, format_only=True, outfile_prefix=writable('--format-only', prefix))
    if {'format_only', 'output_dir'} <= keys:
        more = dict(keep_results=True) if 'keep_results' in keys else {}
        return ConfigDict(metric, format_only=True, output_dir=writable('--format-only', where, folder=True), **more)
    return metric if 'out_file_path' in keys else None  # DumpResults writes anyway


def without_truth(steps: list) -> list:
    """Return a pipeline without LoadAnnotations, also inside TestTimeAug, whose steps are lists of alternatives."""
    kept = []
    for step in steps:
        if isinstance(step, list):
            step = without_truth(step)
            kept += [step] if step else []  # an empty list of alternatives would leave TestTimeAug none at all
        elif kind_of(step) != 'LoadAnnotations':
            kept.append(step | {'transforms': without_truth(step.transforms)} if 'transforms' in step else step)
    return kept
