"""From command-line arguments to a finished run: what tools/train.py and tools/test.py call."""
import re
import sys
from argparse import Namespace
from contextlib import nullcontext
from functools import wraps
from pathlib import Path
from pickle import UnpicklingError

from mmengine.config import Config

from mmincubation.checkpoints import CheckpointError, read_tensors
from mmincubation.checkpoints.hub import local_file
from mmincubation.config.auto_arch import asking, settle_archs
from mmincubation.config.classes import names_for_test
from mmincubation.config.data_only import read_data_only
from mmincubation.config.keys import weight_problems
from mmincubation.config.load import load_config, parse_options
from mmincubation.config.problems import config_warnings, refuse
from mmincubation.config.scaling import batch_warnings
from mmincubation.datasets.records import remove_records
from mmincubation.errors import ConfigError, Stop
from mmincubation.recovery.checkpoint_files import checkpoints_of, newest_complete
from mmincubation.recovery.data_errors import wrap_datasets
from mmincubation.recovery.fingerprint import require_same_run
from mmincubation.recovery.lock import lock
from mmincubation.recovery.lost_processes import end_workers, leave, naming_lost_processes
from mmincubation.recovery.preemption import Request, listening
from mmincubation.resumable import make_resumable

from .console import SHOWN
from .guards import guard_test, guard_training
from .loading import load_for_test, require_training
from .named_errors import naming_steps
from .options import apply_options
from .ranks import close_process_group, first_to_say, init_process_group, rank_and_ranks, restarted
from .runner import ToolRunner


def as_command(tool):
    """Run a tool as a command: take signals, hand them to it as a `Request`, and end the loaders' workers.

    Errors of a wrong command become one line on stderr and exit code 2, a Stop its own line and exit code. What all
    ranks have to say is said once.
    """

    @wraps(tool)
    def guarded(args: Namespace) -> int:
        code, text = 2, ''
        try:
            with listening() as request, naming_lost_processes():
                code = tool(args, request)
        except (ConfigError, CheckpointError) as error:
            text = f'error: {error}'
        except UnpicklingError as error:
            text = f'error: the checkpoint was refused, nothing in it was executed: {_refused(error)}'
        except Stop as stop:
            text, code = f'{type(stop).__name__}: {stop}', stop.exit_code
        finally:
            if text and first_to_say(text):
                print(text, file=sys.stderr)
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
    cfg, settled = _read_config(args, 'train', ranks)
    warnings = _find_resumed(cfg, _resume_of(cfg, args))
    if cfg.get('load_from') and not cfg.resume:
        read_tensors(cfg.load_from)  # what is wrong with the file itself is said before anything is built
    # A resumed run must give the same result as an uninterrupted run.
    make_resumable(cfg.train_cfg)
    timeout = init_process_group(args.launcher, cfg)
    warnings += [*batch_warnings(cfg, ranks), *config_warnings(cfg)]
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
        for line in settled:
            runner.logger.info(line, extra=SHOWN)
        guard_training(runner, args, request, timeout)
        with naming_steps(runner):
            runner.train()
    close_process_group()
    return 0


@as_command
def test(args: Namespace, request: Request) -> int:
    """Run the command of tools/test.py; return the exit code."""
    _, ranks = rank_and_ranks(args.launcher)
    cfg, settled = _read_config(args, 'test', ranks)
    content, header = read_tensors(args.checkpoint)
    known = names_for_test(cfg, args.checkpoint, content, header)
    timeout = init_process_group(args.launcher, cfg)
    runner = ToolRunner.from_cfg(cfg)
    wrap_datasets(runner, 'test', known=known)
    guard_test(runner, request, timeout)
    for line in config_warnings(cfg):
        runner.logger.warning(line)
    for line in [*settled, load_for_test(runner.model, args.checkpoint, content, cfg)]:
        runner.logger.info(line, extra=SHOWN)
    with naming_steps(runner):
        runner.test()
    close_process_group()
    return 0


def _read_config(args: Namespace, mode: str, ranks: int) -> tuple[Config, list[str]]:
    """Read the config and change it as the command says; nothing has been built or written when it is refused.

    Return also what `arch='auto'` became.

    Raises:
        ConfigError: one line for each mistake in the config or the command.
        CheckpointError: the file that `arch='auto'` is taken from does not say it.
    """
    read_data_only()
    cfg = load_config(args.config, parse_options(args.cfg_options))
    apply_options(cfg, args, mode)
    trained = args.checkpoint if mode == 'test' else _resumed(cfg, args)
    settled = settle_archs(cfg, trained)
    refuse(cfg, mode, ranks, resumes=trained is not None)
    return cfg, settled


def _resume_of(cfg: Config, args: Namespace) -> str | None:
    """Return the value of `--resume`, given or not: torchrun or Slurm may have restarted this command."""
    given = 'auto' if restarted() and checkpoints_of(cfg.work_dir) else args.resume
    return given or cfg.get('resume') and (cfg.get('load_from') or 'auto') or None


def _resumed(cfg: Config, args: Namespace) -> str | None:
    """Return the checkpoint that a run resumes from, where it must stand for weights: of 'auto', or that are gone."""
    if not cfg.get('work_dir') or not asking(cfg) and not any(weight_problems(dict(cfg.items()))):
        return None
    given = _resume_of(cfg, args)
    path = newest_complete(cfg.work_dir)[0] if given == 'auto' else given and local_file(given)
    return str(path) if path and Path(path).is_file() else None


def _find_resumed(cfg: Config, given: str | None) -> list[str]:
    """Decide which checkpoint the run resumes from, and set `cfg.resume` and `cfg.load_from`.

    `given` is that of `_resume_of`: None, `auto` or a path. Return warnings about newer files that are damaged.
    Without a checkpoint the run starts from scratch; it never writes over an earlier run.

    Raises:
        CheckpointError: the checkpoint is damaged, or not that of a training.
        ConfigError: the work dir holds an earlier run, and nothing says to resume it.
    """
    cfg.resume, warnings = bool(given), []
    if given == 'auto':
        found, warnings = newest_complete(cfg.work_dir)
        cfg.resume, cfg.load_from = found is not None, str(found) if found else cfg.get('load_from')
    elif given:
        cfg.load_from = str(local_file(given))
        require_training(given, cfg.load_from)
    elif earlier := checkpoints_of(cfg.work_dir):
        raise ConfigError(f'{cfg.work_dir} holds an earlier run, up to {earlier[0].name}: go on with --resume, begin '
                          'anew in another --work-dir, or delete it')
    return warnings
