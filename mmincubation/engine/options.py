"""What the options of tools/train.py and tools/test.py change in a config."""
from argparse import Namespace
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmincubation.config.models import is_incubation
from mmincubation.config.sections import missing_problems, section_problems
from mmincubation.config.signatures import accepted, resolve
from mmincubation.errors import ConfigError
from mmincubation.vit.sharding import shard_options


def apply_options(cfg: Config, args: Namespace, mode: str) -> None:
    """Change `cfg` in place as the command says; `mode` is `'train'` or `'test'`.

    Options change parts of sections. A config whose sections are missing or malformed is left as it is: it is refused
    for them.

    Raises:
        ConfigError: an option needs something that the config does not have.
    """
    cfg.launcher = args.launcher
    if any(missing_problems(cfg, mode)) or any(section_problems(cfg, mode)):
        return
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    if mode == 'train':
        _apply_train(cfg, args)
    else:
        _apply_test(cfg, args)
    if args.launcher != 'none':
        # The stock default passes device_ids, which DDP refuses on a CPU and does not need on a GPU.
        cfg.setdefault('model_wrapper_cfg', dict(
            type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None,
            find_unused_parameters=cfg.get('find_unused_parameters', False)))


def _apply_train(cfg: Config, args: Namespace) -> None:
    if args.amp:
        cfg.optim_wrapper.type = 'mmincubation.AutocastOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):  # of an AmpOptimWrapper
            cfg.optim_wrapper.pop(key, None)
    if args.auto_scale_lr:
        cfg.auto_scale_lr = dict(cfg.get('auto_scale_lr') or {}, enable=True)
    if args.phase is not None:
        _run_alone(cfg, args.phase)


def _run_alone(cfg: Config, phase: str) -> None:
    """One phase in a folder of its own under the run's; the weights are shared through `<work_dir>/weights`."""
    if not is_incubation(cfg):
        raise ConfigError('--phase needs a config whose train_cfg is an IncubationLoop')
    cfg.train_cfg.phase = phase
    cfg.train_cfg.setdefault('weights_dir', str(Path(cfg.work_dir) / 'weights'))
    cfg.work_dir = str(Path(cfg.work_dir) / phase)


def _apply_test(cfg: Config, args: Namespace) -> None:
    if shard_options(cfg.get('model_wrapper_cfg')) is not None:
        cfg.pop('model_wrapper_cfg')  # ranks may have different numbers of batches
    if args.tta:
        use_tta(cfg, args.config)
    if args.show_dir:
        draw(cfg, args.show_dir)
    if args.format_only is not None:
        format_only(cfg, args.format_only or str(Path(cfg.work_dir) / 'predictions'))
    if args.out:
        dump(cfg, args.out)
    cfg.load_from, cfg.resume = None, False  # the checkpoint of the command is loaded instead


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
