"""From the command line of tools/suite.py to the leaderboard at the end."""
import logging
import os
import subprocess
import sys
import time
import warnings
from argparse import Namespace

import torch

from mmincubation.config.data_only import read_data_only
from mmincubation.errors import CheckpointError, ConfigError, clean
from mmincubation.recovery.lock import lock

from .cost import clock
from .plan import dry_run, print_jobs, wrong_runs
from .runs import Suite, read_suite, tool
from .settings import OTHER, Settings
from .weights import require_recipes, suite_of
from .work import Work, cores, of_others


def main(args: Namespace) -> int:
    """Run the command of tools/suite.py; return its exit code."""
    try:
        _quiet()
        if args.gpus < 1 or args.jobs is not None and args.jobs < 1:
            raise ConfigError('--gpus and --jobs: give 1 or more')
        suite = _suite(args)
        settings = Settings(suite, args.gpus)
        for run in suite.runs.values():
            settings.of(run)  # each config and option is read before anything runs
        if args.print:
            print_jobs(settings)
            return 0
        devices = visible_devices()
        if devices and len(devices) < args.gpus:
            raise ConfigError(f'--gpus {args.gpus}: this machine has {len(devices)}; --print makes jobs for Slurm')
        jobs = args.jobs or max(1, len(devices) // args.gpus)
        return dry_run(settings, jobs) if args.dry_run else do(settings, jobs, devices)
    except (ConfigError, CheckpointError, OSError) as error:
        return refuse(error)


def do_file(path: str, hint: str) -> int:
    """Do the runs of a suite file with one process on each core; runs of other settings begin anew."""
    try:
        _quiet()
        return do(Settings(read_suite(path)), cores(), visible_devices(), hint, renew=True)
    except (ConfigError, CheckpointError, OSError) as error:
        return refuse(error)


def _quiet() -> None:
    warnings.simplefilter('ignore')  # of the MM packages, about their own names
    logging.disable(logging.WARNING)
    read_data_only()


def refuse(error: Exception) -> int:
    """Print the lines of an error, and return the exit code of a wrong command."""
    for line in str(error).splitlines():
        print(f'error: {clean(line)}', file=sys.stderr)
    return 2


def _suite(args: Namespace) -> Suite:
    files = [word for word in args.what if word.endswith('.py')]
    if not files:
        require_recipes()
        return suite_of(args, fetch=not (args.dry_run or args.print))
    if len(args.what) > 1:
        raise ConfigError('give one suite file, or weights: not both')
    if given := [f'--{name}' for name in ('tasks', 'seeds', 'model', 'data') if getattr(args, name) is not None]:
        raise ConfigError(f'{", ".join(given)}: for weights; a suite file says it itself')
    return read_suite(files[0], args.work_dir)


def do(settings: Settings, jobs: int, devices: list[str], hint: str = 'The same command goes on from here.',
       renew: bool = False, poll: float = .2) -> int:
    """Do the runs of a suite, print the leaderboard of its folder, and return the exit code.

    `hint` is what to do when a run has failed. `renew` lets a run of other settings begin anew.
    """
    began, work_dir, runs = time.monotonic(), settings.suite.work_dir, settings.suite.runs
    with lock(work_dir):
        work = Work(settings, jobs, devices, renew, poll)
        if not renew:
            _refuse_others(settings)
        work.plan()
        for run, line in () if renew else wrong_runs(settings, work.waiting):
            work.leave_out(run, line)
        code = work.do()
        if code not in (0, 1):
            return code
        done = f'{len(runs) - len(work.failed)} of {len(runs)}' if work.failed else 'All'
        print(f'{done} runs finished after {clock(time.monotonic() - began)}.', flush=True)
        # Of these runs alone: the folder may hold others, such as more seeds.
        folders = [str(run.folder) for run in runs.values() if any(path.exists() for path in run.results)]
        command = [sys.executable, tool('leaderboard.py'), *folders, '--out', str(work_dir)]
        table = subprocess.call(command) if folders else 0
    if work.failed:
        lines = [clean(f'  {name}: {why}') for name, why in work.failed.items()]
        print('\n'.join(['Not finished:', *lines, hint]), file=sys.stderr)
    return code or table


def _refuse_others(settings: Settings) -> None:
    lines = [f'{run.name}: {run.folder} {of_others(why)}' for run in settings.suite.runs.values()
             for state, why in [settings.judge(run)] if state == OTHER]
    if lines:
        raise ConfigError('\n'.join(lines))


def visible_devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get('CUDA_VISIBLE_DEVICES')
    count = torch.cuda.device_count()
    return given.split(',')[:count] if given else [str(i) for i in range(count)]
