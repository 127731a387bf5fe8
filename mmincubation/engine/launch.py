"""From command-line arguments to a finished run: what tools/train.py and tools/test.py call."""
import logging
import os
import re
import sys
import zipfile
from argparse import ArgumentParser, Namespace
from functools import wraps
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.config import Config, DictAction
from mmengine.model import BaseTTAModel
from mmengine.runner import CheckpointLoader, Runner, find_latest_checkpoint

from mmincubation.checkpoints import CheckpointError, load_strict, load_vit, read_tensors
from mmincubation.checkpoints.hub import SCHEME, local_file
from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.incubation.phases import read_phases, select_phases
from mmincubation.incubation.recipe import check_recipe
from mmincubation.incubation.start import check_start
from mmincubation.models import Arch, Division
from mmincubation.result import check_experiment

from . import test_options
from .config_check import ConfigError, check_config, load_config
from .config_types import optim_wrappers
from .cost import unwrap
from .data_errors import DataErrorsHook, check_samples, forget_records
from .hooks import CheckpointGuard
from .runtime_check import check_runtime


def one_line_errors(tool):
    """Turn the errors of a wrong command into one line on stderr and exit code 2."""

    @wraps(tool)
    def guarded(args: Namespace) -> int:
        try:
            return tool(args)
        except (ConfigError, CheckpointError) as error:
            print(f'error: {error}', file=sys.stderr)
        except UnpicklingError as error:
            print(f'error: the checkpoint was refused, nothing in it was executed: {_refused(error)}', file=sys.stderr)
        return 2

    return guarded


def _refused(error: UnpicklingError) -> str:
    """Torch's message without its colours and its advice to allow everything."""
    match = re.search(r'WeightsUnpickler error: (.*?global \S+|[^.\n]*)', str(error))
    return match[1] if match else str(error).splitlines()[0]


@one_line_errors
def train(args: Namespace) -> int:
    """Run tools/train.py's command; returns the exit code."""
    cfg = _prepare(args, 'train')
    if args.amp:
        cfg.optim_wrapper.type = 'mmincubation.AutocastOptimWrapper'
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ConfigError(f'{args.config} has no auto_scale_lr.base_batch_size: add it, or drop --auto-scale-lr')
        cfg.auto_scale_lr.enable = True
    check_scaling(cfg)
    if args.phase is not None:
        _run_alone(cfg, args.phase)
    if args.resume is not None:
        cfg.resume, cfg.load_from = True, _checkpoint_to_resume(args.resume, cfg.work_dir)
    if cfg.get('load_from'):
        _check_file(cfg.load_from)
    check_models(cfg)
    check_samples(cfg, 'train')
    if not cfg.get('resume') and os.environ.get(LAUNCHER_VARIABLES.get(args.launcher), '0') == '0':
        forget_records(cfg.work_dir)  # the other ranks wait for this one below
    _init_process_group(args.launcher)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(CheckpointGuard())
    runner.register_hook(DataErrorsHook())
    runner.train()
    _close_process_group()
    return 0


@one_line_errors
def test(args: Namespace) -> int:
    """Run tools/test.py's command; returns the exit code."""
    cfg = _prepare(args, 'test')
    if missing := [key for key in ('test_dataloader', 'test_cfg', 'test_evaluator') if cfg.get(key) is None]:
        raise ConfigError(f'{args.config} cannot be tested: it has no {", ".join(missing)}')
    if args.tta:
        test_options.use_tta(cfg, args.config)
    if args.show_dir:
        test_options.draw(cfg, args.show_dir)
    if args.format_only is not None:
        test_options.format_only(cfg, args.format_only or str(Path(cfg.work_dir) / 'predictions'))
    cfg.load_from, cfg.resume = None, False
    _check_file(args.checkpoint)
    if args.out:
        test_options.dump(cfg, args.out)
    check_samples(cfg, 'test')
    _init_process_group(args.launcher)
    runner = Runner.from_cfg(cfg)
    runner.logger.info(load_for_test(runner.model, args.checkpoint))
    runner.test()
    _close_process_group()
    return 0


def load_for_test(model: torch.nn.Module, path: str) -> str:
    """Load a checkpoint strictly into a built model: a run's own .pth, or weights of a ViT into a classifier.

    Returns the coverage line.
    """
    model = unwrap(model)
    model = model.module if isinstance(model, BaseTTAModel) else model
    state = read_tensors(path)[0].get('state_dict')
    vit = getattr(model, 'target', None) or getattr(model, 'vit', None)
    if state and (vit is None or model.state_dict().keys() & state.keys()):  # others' ViTs also come in a state_dict
        return load_strict(model, state, source=path)['coverage']
    if vit is None:
        raise CheckpointError(f'{path} holds bare weights, a {type(model).__name__} is tested with a .pth of its run')
    return load_vit(vit, path)['coverage']


def parse_options(words: list[str] | None) -> dict:
    """`--cfg-options` in mmengine's syntax to a dict of dotted keys."""
    parser = ArgumentParser()
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    if wrong := [word for word in words or [] if '=' not in word]:
        raise ConfigError(f'--cfg-options {wrong[0]}: write it as key=value')
    return parser.parse_args(['--cfg-options', *words] if words else []).cfg_options


def _checkpoint_to_resume(given: str, work_dir: str) -> str | None:
    """The file that `--resume` means: `given`, or what the work dir's `last_checkpoint` names (None: nothing yet)."""
    path = find_latest_checkpoint(work_dir) if given == 'auto' else given
    if given == 'auto' and path and not Path(path).is_file():
        raise CheckpointError(f'{work_dir}/last_checkpoint names {path}, which is gone; give --resume PATH, or begin '
                              'anew in another --work-dir')
    return path


def _check_file(path: str) -> None:
    """Raise CheckpointError unless `path`, or the hub's file that it names, begins and ends as a checkpoint does."""
    path = local_file(path)
    if not path.is_file():
        raise CheckpointError(f'checkpoint {path} does not exist')
    if path.suffix != '.safetensors' and not zipfile.is_zipfile(path):
        raise CheckpointError(f'checkpoint {path} is truncated or no checkpoint; give an earlier one')


def _prepare(args: Namespace, mode: str) -> Config:
    """The config with the arguments that both tools have; checked before the other arguments touch it."""
    allow_mm_checkpoints()
    CheckpointLoader.register_scheme(SCHEME, lambda name, map_location: read_tensors(name)[0], force=True)
    cfg = load_config(args.config, parse_options(args.cfg_options))
    check_config(cfg, mode)
    cfg.launcher = args.launcher
    check_runtime(cfg, mode)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    if args.launcher != 'none':
        # The stock default passes device_ids, which DDP refuses on a CPU and does not need on a GPU.
        cfg.setdefault('model_wrapper_cfg', dict(
            type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None,
            find_unused_parameters=cfg.get('find_unused_parameters', False)))
    return cfg


def _run_alone(cfg: Config, phase: str) -> None:
    """One phase in a folder of its own under the run's; the weights are shared through `<work_dir>/weights`."""
    if not _is_incubation(cfg):
        raise ConfigError('--phase needs a config whose train_cfg is an IncubationLoop')
    cfg.train_cfg.phase = phase
    cfg.train_cfg.setdefault('weights_dir', str(Path(cfg.work_dir) / 'weights'))
    cfg.work_dir = str(Path(cfg.work_dir) / phase)


def check_models(cfg: Config) -> None:
    """Read architecture, phases and experiment once, so that their errors come before anything is built.

    Raises:
        ConfigError: one of them is wrong.
    """
    try:
        if 'experiment' in cfg or any('ResultHook' in hook.type for hook in cfg.get('custom_hooks') or []):
            check_experiment(cfg.get('experiment'))
        for model in (cfg.model, cfg.model.get('backbone') or {}):
            if str(model.get('type')).startswith('mmincubation.') and 'arch' in model:
                Arch.parse(model.arch)
        if _is_incubation(cfg):
            loop = cfg.train_cfg
            check_recipe(loop.get('recipe', 'clean'))
            check_start(loop.get('start', 'random'))
            division = Division.of(Arch.parse(cfg.model.arch).depth, cfg.model.get('modules', 4))
            select_phases(read_phases(loop.phases, len(division)), loop.get('phase'))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def check_scaling(cfg: Config) -> None:
    """mmengine scales the learning rate to the batch of one iteration, however many of them an update accumulates.

    Raises:
        ConfigError: `auto_scale_lr` is on and some optimiser wrapper accumulates.
    """
    if (cfg.get('auto_scale_lr') or {}).get('enable'):
        for place, wrapper in optim_wrappers(cfg):
            if (counts := wrapper.get('accumulative_counts', 1)) != 1:
                raise ConfigError(
                    f'{place}.accumulative_counts={counts}: auto_scale_lr would not see it; drop --auto-scale-lr and '
                    f'set {place}.optimizer.lr for {counts} x batch_size x ranks images')


def _is_incubation(cfg: Config) -> bool:
    return (cfg.get('train_cfg') or {}).get('type', '').endswith('IncubationLoop')


LAUNCHER_VARIABLES = dict(pytorch='RANK', slurm='SLURM_PROCID', mpi='OMPI_COMM_WORLD_RANK')


def _init_process_group(launcher: str) -> None:
    """CPU ranks under torchrun: mmengine would call CUDA, so the group must exist before the Runner does."""
    if launcher == 'none':
        return
    if LAUNCHER_VARIABLES[launcher] not in os.environ:
        raise ConfigError(f'--launcher {launcher}: {LAUNCHER_VARIABLES[launcher]} is not set; start through torchrun '
                          '(tools/dist_train.sh), srun or mpirun, or use --launcher none')
    if not torch.cuda.is_available():
        if launcher != 'pytorch':
            raise ConfigError(f'--launcher {launcher} needs a GPU; on CPUs start through tools/dist_train.sh')
        torch.distributed.init_process_group('gloo')


def _close_process_group() -> None:
    """Leave together. With gloo, end here: in one run of ten its threads abort an interpreter that shuts down."""
    if torch.distributed.is_initialized():
        gloo = torch.distributed.get_backend() == 'gloo'
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
        if gloo:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
