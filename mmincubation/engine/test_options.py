"""Change a config as the options of tools/test.py ask."""
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmincubation.config.signatures import accepted, resolve
from mmincubation.errors import ConfigError


def use_tta(cfg: Config, path: str) -> None:
    """Turn on test-time augmentation as the config at `path` defines it.

    Raises:
        ConfigError: the config defines none.
    """
    if cfg.get('tta_model') is None or cfg.get('tta_pipeline') is None:
        raise ConfigError(f'{path} defines no tta_model and tta_pipeline: drop --tta, or add them')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def dump(cfg: Config, path: str) -> None:
    """Write the predictions to a pickle as well.

    Raises:
        ConfigError: the name does not end as a pickle's.
    """
    if not path.endswith(('.pkl', '.pickle')):
        raise ConfigError(f'--out {path}: predictions are written as a pickle; give a name that ends in .pkl')
    kind = 'mmdet.DumpDetResults' if cfg.get('default_scope') == 'mmdet' else 'mmengine.DumpResults'
    cfg.test_evaluator = [*_evaluators(cfg), dict(type=kind, out_file_path=path)]


def format_only(cfg: Config, where: str) -> None:
    """Make the metrics write the predictions in the format of a test server instead of scoring them.

    `where` is a prefix (COCO) or a folder (label pictures). The ground truth is not read.

    Raises:
        ConfigError: a metric of the config cannot write predictions, or the data set has no pipeline.
    """
    for evaluator in _evaluators(cfg):
        kind = str(evaluator.get('type'))
        keys = {key for _, cls in resolve(kind, cfg.get('default_scope') or 'mmengine') for key in accepted(cls)[0]}
        targets = [key for key in ('outfile_prefix', 'output_dir') if key in keys]
        if 'format_only' not in keys or not targets:
            raise ConfigError(f'--format-only: {kind} writes no predictions; the metrics of detection '
                              '(FastCocoMetric, CocoMetric) and segmentation (IoUMetric) do')
        evaluator.update({'format_only': True, targets[0]: where})
    dataset = cfg.test_dataloader.dataset
    if not isinstance(dataset.get('pipeline'), list):
        raise ConfigError('--format-only: test_dataloader.dataset has no list of steps, `pipeline`, to load images by')
    dataset.pipeline = _without_truth(dataset.pipeline)


def draw(cfg: Config, show_dir: str) -> None:
    """Draw the predictions beside the ground truth into `show_dir`, with the scope's own hook and visualiser.

    Raises:
        ConfigError: the config has no such hook.
    """
    hooks = cfg.get('default_hooks') or {}
    if not hooks.get('visualization'):
        raise ConfigError('the config has no default_hooks.visualization: drop --show-dir, or add the hook')
    hook, scope = hooks.visualization, cfg.get('default_scope')
    hook.draw = True
    show_dir = str(Path(show_dir).resolve())  # a relative one would be taken from the work dir
    if scope == 'mmdet':
        hook.test_out_dir = show_dir
    elif cfg.get('visualizer') is None:
        raise ConfigError('the config has no visualizer: drop --show-dir, or add it')
    else:
        cfg.visualizer.save_dir = show_dir
    if scope == 'mmseg':
        hook.interval = 1


def _evaluators(cfg: Config) -> list[ConfigDict]:
    return cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]


def _without_truth(steps: list) -> list:
    """Return a pipeline without LoadAnnotations, also inside TestTimeAug, whose steps are lists of alternatives."""
    kept = []
    for step in steps:
        if isinstance(step, list):
            step = _without_truth(step)
            kept += [step] if step else []  # an empty list of alternatives would leave TestTimeAug none at all
        elif str(step.get('type')).rpartition('.')[2] != 'LoadAnnotations':
            kept.append(step | {'transforms': _without_truth(step.transforms)} if 'transforms' in step else step)
    return kept
