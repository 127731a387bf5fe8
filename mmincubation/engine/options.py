"""What the options of tools/train.py and tools/test.py change in a config."""
from argparse import Namespace
from pathlib import Path

from mmengine.config import Config

from mmincubation.config.models import is_incubation
from mmincubation.config.sections import missing_problems, section_problems
from mmincubation.errors import ConfigError
from mmincubation.vit.sharding import shard_options

from .outputs import draw, dump, format_only, use_tta


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
    given = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    cfg.work_dir = str(Path(given).expanduser())
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
