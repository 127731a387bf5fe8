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
from mmincubation.config.classes import names_for_test
from mmincubation.config.data_only import read_data_only
from mmincubation.config.load import load_config, parse_options
from mmincubation.config.problems import refuse
from mmincubation.config.scaling import batch_warnings
from mmincubation.datasets.records import remove_records
from mmincubation.errors import ConfigError, Stop
from mmincubation.recovery.checkpoint_files import checkpoints_of, damage, newest_complete
from mmincubation.recovery.checkpoint_guard import CheckpointGuard
from mmincubation.recovery.data_errors import DataErrorsHook, wrap_datasets
from mmincubation.recovery.divergence import FiniteGuard
from mmincubation.recovery.fingerprint import FingerprintHook, require_same_run
from mmincubation.recovery.lock import lock
from mmincubation.recovery.lost_processes import end_workers, leave, naming_lost_processes
from mmincubation.recovery.preemption import PreemptionHook, Request, listening
from mmincubation.resumable import make_resumable
from mmincubation.vit.sharding import unwrap

from .options import apply_options
from .ranks import close_process_group, init_process_group, rank_and_ranks, restarted
from .runner import ToolRunner
from .sharding import ShardingHook


def as_command(tool):
    """Run a tool as a command: take signals, hand them to it as a `Request`, and end the loaders' workers.

    Errors of a wrong command become one line on stderr and exit code 2, a Stop its own line and exit code.
    """

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


@as_command
def train(args: Namespace, request: Request) -> int:
    """Run the command of tools/train.py; return the exit code."""
    rank, ranks = rank_and_ranks(args.launcher)
    cfg = _read_config(args, 'train', ranks)
    # torchrun or Slurm may have restarted this command: then resume, if a checkpoint exists.
    warnings = _find_resumed(cfg, 'auto' if restarted() and checkpoints_of(cfg.work_dir) else args.resume)
    if cfg.get('load_from') and not cfg.resume:
        _need_checkpoint(cfg.load_from)
    # A resumed run must give the same result as an uninterrupted run.
    make_resumable(cfg.train_cfg)
    timeout = init_process_group(args.launcher, cfg)
    warnings += batch_warnings(cfg, ranks)
    # Rank 0 locks the work dir for all ranks. If it fails, the launcher stops the others.
    with lock(cfg.work_dir, args.phase and Path(cfg.work_dir).parent) if rank == 0 else nullcontext():
        # A resumed run must be set up as its checkpoint's was; a new one counts its bad samples anew.
        require_same_run(cfg, ranks, args.allow_changed)
        if rank == 0 and not cfg.resume:
            remove_records(cfg.work_dir)
        runner = ToolRunner.from_cfg(cfg)
        wrap_datasets(runner, 'train', 'val')
        for line in warnings:  # not before: the logger is the runner's
            runner.logger.warning(line)
        # The guards of every run, which no config needs to name.
        for hook in (CheckpointGuard(), FingerprintHook(args.allow_changed), FiniteGuard(args.skip_nonfinite),
                     PreemptionHook(request, timeout), DataErrorsHook(), ShardingHook()):
            runner.register_hook(hook)
        runner.train()
    close_process_group()
    return 0


@as_command
def test(args: Namespace, request: Request) -> int:
    """Run the command of tools/test.py; return the exit code."""
    _, ranks = rank_and_ranks(args.launcher)
    cfg = _read_config(args, 'test', ranks)
    _need_checkpoint(args.checkpoint)
    known = names_for_test(cfg, args.checkpoint)
    timeout = init_process_group(args.launcher, cfg)
    runner = ToolRunner.from_cfg(cfg)
    wrap_datasets(runner, 'test', known=known)
    runner.register_hook(PreemptionHook(request, timeout))
    runner.logger.info(load_for_test(runner.model, args.checkpoint))
    runner.test()
    close_process_group()
    return 0


def _read_config(args: Namespace, mode: str, ranks: int) -> Config:
    """Read the config and change it as the command says; nothing has been built or written when it is refused.

    Raises:
        ConfigError: one line for each mistake in the config or the command.
    """
    read_data_only()
    cfg = load_config(args.config, parse_options(args.cfg_options))
    apply_options(cfg, args, mode)
    refuse(cfg, mode, ranks)
    return cfg


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
    """Decide which checkpoint the run resumes from, and set `cfg.resume` and `cfg.load_from`.

    `given` is the value of `--resume`: None, `auto` or a path. Return warnings about newer files that are damaged.
    Without a checkpoint the run starts from scratch; it never writes over an earlier run.

    Raises:
        CheckpointError: the checkpoint is damaged.
        ConfigError: the work dir holds an earlier run, and nothing says to resume it.
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


def _need_checkpoint(path: str) -> None:
    """Raise CheckpointError unless `path`, or the hub's file that it names, begins and ends as a checkpoint does."""
    path = local_file(path)
    if not path.is_file():
        raise CheckpointError(f'checkpoint {path} does not exist')
    if path.suffix != '.safetensors' and not zipfile.is_zipfile(path):
        raise CheckpointError(f'checkpoint {path} is truncated or no checkpoint; give an earlier one')
