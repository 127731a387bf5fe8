"""From command-line arguments to a finished run: what tools/train.py and tools/test.py call."""
import re
import sys
import zipfile
from argparse import Namespace
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from pickle import UnpicklingError

import torch
from mmengine.config import Config
from mmengine.model import BaseTTAModel

from mmincubation.checkpoints import CheckpointError, load_strict, load_vit, read_tensors
from mmincubation.checkpoints.hub import local_file
from mmincubation.config.data_errors import check_policy
from mmincubation.config.data_only import read_data_only
from mmincubation.config.keys import check_config
from mmincubation.config.load import load_config, parse_options
from mmincubation.config.models import check_models, is_incubation
from mmincubation.config.runtime import check_runtime
from mmincubation.config.scaling import batch_warnings, check_scaling
from mmincubation.config.sharding import check_sharding
from mmincubation.datasets.records import remove_records
from mmincubation.errors import ConfigError, Stop
from mmincubation.recovery.checkpoint_files import checkpoints_of, damage, newest_complete
from mmincubation.recovery.checkpoint_guard import CheckpointGuard
from mmincubation.recovery.data_errors import DataErrorsHook, check_samples
from mmincubation.recovery.divergence import FiniteGuard
from mmincubation.recovery.fingerprint import SettingsHook, check_settings
from mmincubation.recovery.lock import hold
from mmincubation.recovery.lost_processes import end_workers, leave, naming_lost_processes
from mmincubation.recovery.preemption import PreemptionHook, Request, listening
from mmincubation.resumable import make_resumable
from mmincubation.vit.sharding import shard_options, unwrap

from . import test_options
from .ranks import check_launcher, close_process_group, init_process_group, rank_and_ranks, restarted
from .runner import ToolRunner
from .sharding import ShardingHook


def one_line_errors(tool):
    """Turn the errors of a wrong command into one line on stderr and exit code 2, and a Stop into its own."""

    @wraps(tool)
    def guarded(args: Namespace) -> int:
        code = 2
        try:
            with listening() as request, naming_lost_processes():
                code = tool(args, request)
        except (ConfigError, CheckpointError) as error:
            print(f'error: {error}', file=sys.stderr)
        except UnpicklingError as error:
            print(f'error: the checkpoint was refused, nothing in it was executed: {_refused(error)}', file=sys.stderr)
        except Stop as stop:
            print(f'{type(stop).__name__}: {stop}', file=sys.stderr)
            code = stop.exit_code
        finally:
            end_workers()
        return leave(code)

    return guarded


def _refused(error: UnpicklingError) -> str:
    """Torch's message without its colours and its advice to allow everything."""
    match = re.search(r'WeightsUnpickler error: (.*?global \S+|[^.\n]*)', str(error))
    return match[1] if match else str(error).splitlines()[0]


@one_line_errors
def train(args: Namespace, request: Request) -> int:
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
    warnings = _find_resumed(cfg, 'auto' if restarted() and checkpoints_of(cfg.work_dir) else args.resume)
    if cfg.get('load_from') and not cfg.resume:
        _check_file(cfg.load_from)
    check_launcher(args.launcher)
    rank, ranks = rank_and_ranks(args.launcher)
    check_models(cfg, ranks)
    check_policy(cfg)
    check_sharding(cfg)
    make_resumable(cfg.train_cfg)
    timeout = init_process_group(args.launcher, cfg)
    warnings += batch_warnings(cfg, ranks)
    # Rank 0 holds the work dir for all: without it, the launcher ends the others.
    with hold(cfg.work_dir, args.phase and Path(cfg.work_dir).parent) if rank == 0 else nullcontext():
        check_settings(cfg, ranks, args.allow_changed)
        if rank == 0 and not cfg.resume:
            remove_records(cfg.work_dir)
        runner = ToolRunner.from_cfg(cfg)
        check_samples(runner, 'train', 'val')
        for line in warnings:
            runner.logger.warning(line)
        for hook in (CheckpointGuard(), SettingsHook(args.allow_changed), FiniteGuard(args.skip_nonfinite),
                     PreemptionHook(request, timeout), DataErrorsHook(), ShardingHook()):
            runner.register_hook(hook)
        runner.train()
    close_process_group()
    return 0


@one_line_errors
def test(args: Namespace, request: Request) -> int:
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
    timeout = init_process_group(args.launcher, cfg)
    runner = ToolRunner.from_cfg(cfg)
    check_samples(runner, 'test')
    runner.register_hook(PreemptionHook(request, timeout))
    runner.logger.info(load_for_test(runner.model, args.checkpoint))
    runner.test()
    close_process_group()
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


def _find_resumed(cfg: Config, given: str | None) -> list[str]:
    """Settle what the run continues, None or PATH being what `--resume` says: `load_from` is then that file, whole.

    Returns warnings about newer files that are damaged. Where there is nothing yet, the run starts from scratch; an
    earlier run is never written over.
    """
    given = given or cfg.get('resume') and (cfg.get('load_from') or 'auto')
    cfg.resume, warnings = bool(given), []
    if given == 'auto':
        found, warnings = newest_complete(cfg.work_dir)
        cfg.resume, cfg.load_from = found is not None, str(found) if found else cfg.get('load_from')
    elif given:
        cfg.load_from = str(local_file(given))
        if problem := damage(cfg.load_from):
            raise CheckpointError(f'checkpoint {given} {problem}; give an earlier one')
    elif earlier := checkpoints_of(cfg.work_dir):
        raise ConfigError(f'{cfg.work_dir} holds an earlier run, up to {earlier[0].name}: go on with --resume, begin '
                          'anew in another --work-dir, or delete it')
    return warnings


def _check_file(path: str) -> None:
    """Raise CheckpointError unless `path`, or the hub's file that it names, begins and ends as a checkpoint does."""
    path = local_file(path)
    if not path.is_file():
        raise CheckpointError(f'checkpoint {path} does not exist')
    if path.suffix != '.safetensors' and not zipfile.is_zipfile(path):
        raise CheckpointError(f'checkpoint {path} is truncated or no checkpoint; give an earlier one')


def _prepare(args: Namespace, mode: str) -> Config:
    """The config with the arguments that both tools have; checked before the other arguments touch it."""
    read_data_only()
    cfg = load_config(args.config, parse_options(args.cfg_options))
    check_config(cfg, mode)
    cfg.launcher = args.launcher
    check_runtime(cfg, mode)
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(args.config).stem)
    if mode == 'test' and shard_options(cfg.get('model_wrapper_cfg')) is not None:
        cfg.pop('model_wrapper_cfg')  # ranks may have different numbers of batches
    if args.launcher != 'none':
        # The stock default passes device_ids, which DDP refuses on a CPU and does not need on a GPU.
        cfg.setdefault('model_wrapper_cfg', dict(
            type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None,
            find_unused_parameters=cfg.get('find_unused_parameters', False)))
    return cfg


def _run_alone(cfg: Config, phase: str) -> None:
    """One phase in a folder of its own under the run's; the weights are shared through `<work_dir>/weights`."""
    if not is_incubation(cfg):
        raise ConfigError('--phase needs a config whose train_cfg is an IncubationLoop')
    cfg.train_cfg.phase = phase
    cfg.train_cfg.setdefault('weights_dir', str(Path(cfg.work_dir) / 'weights'))
    cfg.work_dir = str(Path(cfg.work_dir) / phase)
