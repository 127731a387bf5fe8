"""tools/check.py: all sections of the check of a config, whatever the earlier ones found."""
import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import torch

from mmincubation.checkpoints import CheckpointError
from mmincubation.config.auto_arch import settle_archs
from mmincubation.config.channels import channel_problems
from mmincubation.config.data_only import read_data_only
from mmincubation.config.load import load_config, parse_options
from mmincubation.config.problems import config_warnings, problems
from mmincubation.config.sections import missing_problems
from mmincubation.config.strides import stride_problems
from mmincubation.errors import ConfigError, one_line

from .batches import BOXES, input_size
from .cost import gib, report_disk, report_time
from .data import report_data
from .memory import ERROR, Peak, estimate, forward_fault
from .recipe import report_recipe
from .report import Report
from .sampling import Sampling
from .weights import report_weights


def main(args: Namespace) -> int:
    """Print the report; 0 if the config would run here, 1 if not, 2 for a command that is wrong."""
    warnings.simplefilter('ignore')  # of the MM packages, about their own names
    logging.disable(logging.INFO)  # what a run would log, such as the optimiser's table
    read_data_only()
    try:
        cfg = load_config(args.config, parse_options(args.cfg_options))
        if args.gpus < 1 or (args.img_per_s is not None and args.img_per_s <= 0):
            raise ConfigError('--gpus and --img-per-s must be above 0')
        if missing := list(missing_problems(cfg, 'train')):
            raise ConfigError(*missing)
        settled = settle_archs(cfg)
    except (ConfigError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    report = check(cfg, args.config, args, settled)
    print(report.text())
    return 1 if report.problems else 0


def check(cfg, name: str, args: Namespace, settled: list[str] = ()) -> Report:
    """Run all sections; `args` has gpus, img_per_s, full and work_dir, `settled` is what `settle_archs` returned."""
    report = Report()
    cfg.launcher = 'pytorch' if args.gpus > 1 else 'none'
    work_dir = args.work_dir or cfg.get('work_dir') or str(Path('work_dirs') / Path(name).stem)
    _section(report, 'Config', lambda: _report_problems(cfg, name, args.gpus, report, settled))
    images = _section(report, 'Data', lambda: report_data(cfg, report, Sampling(args.full))) or {}
    _section(report, 'Weights', lambda: report_weights(cfg, report))
    _section(report, 'Recipe', lambda: report_recipe(cfg, images.get('train'), args.gpus, report))
    peaks = _section(report, 'Memory', lambda: _report_memory(cfg, args.gpus, report)) or []
    _section(report, 'Time', lambda: report_time(cfg, images.get('train'), args.gpus, args.img_per_s, report))
    _section(report, 'Disk', lambda: report_disk(cfg, work_dir, peaks, report))
    return report


def _section(report: Report, title: str, run: Callable):
    """A section that cannot run is itself a line, not the end; because of an earlier problem it is no problem more."""
    report.section(title)
    wrong = bool(report.problems)
    try:
        return run()
    except Exception as error:
        if wrong:
            report.say('not checked: correct what is listed below first')
        else:
            report.say(f'could not be checked: {one_line(error)}')
            report.problem(title.lower(), f'could not be checked ({one_line(error)})', '')


def _report_problems(cfg, name: str, gpus: int, report: Report, settled: list[str]) -> None:
    """Report what training refuses, and what testing alone does where the config has a test."""
    gpu = gpus > 1 or torch.cuda.is_available()
    lines = problems(cfg, 'train', gpus, gpu)
    said = {_without_place(line) for line in lines}  # train and test often share their data
    if cfg.get('test_cfg') is not None:
        lines += [line for line in problems(cfg, 'test', gpus, gpu) if _without_place(line) not in said]
    for line in lines:
        report.problem('', line, '')
    for line in () if lines else config_warnings(cfg):
        report.warn(line)
    wrong = f'{len(lines)} problem{"s" * (len(lines) > 1)}'
    report.say(f'{name}: {wrong if lines else "keys, types, paths and model are right"}')
    for line in settled:
        report.say(line)


def _without_place(line: str) -> str:
    """What is wrong, wherever that is."""
    place, colon, rest = line.partition(': ')
    return rest if colon else place


def _not_estimated(cfg, error: Exception, report: Report) -> list[Peak]:
    """Shapes alone do not show what some heads do, so only a forward pass that fails is a problem."""
    known = next(chain(channel_problems(cfg), stride_problems(cfg)), None)  # the config's problems say it by its key
    if fault := None if known else forward_fault(cfg):
        report.problem('model', f'its forward pass fails: {one_line(fault)}', '')
    report.say(f'not estimated: {one_line(fault or error)}')
    return []


def _report_memory(cfg, gpus: int, report: Report) -> list[Peak]:
    size = input_size(cfg.model, cfg.train_dataloader)
    try:
        peaks = estimate(cfg, gpus)
    except Exception as error:  # heads of any kind
        return _not_estimated(cfg, error, report)
    boxes = f', {BOXES} objects each' if cfg.get('default_scope') == 'mmdet' else ''
    report.say(f'a training step of {cfg.train_dataloader["batch_size"]} images of {size[0]} x {size[1]}{boxes}:')
    for p in peaks:
        what = 'full for a while' if p.sharded else 'DDP buckets'
        buckets = f' + {what} {gib(p.buckets)} (computed)' * bool(p.buckets)
        buckets += f' + average of the weights {gib(p.average)} (EMA, computed)' * bool(p.average)
        report.say(f'{p.phase}: parameters {gib(p.parameters)} + optimiser {gib(p.optimizer)} + gradients '
                   f'{gib(p.gradients)} + kept for backward {gib(p.kept)}{buckets}; peak {gib(p.peak)}')
    peak = max(peaks, key=lambda p: p.peak)
    report.say(f'peak {gib(peak.peak)} a GPU: tensors only, +-{ERROR} % measured on CPU; CUDA context and '
               'fragmentation not included (not run on a GPU)')
    here = torch.cuda.device_count()
    if gpus > here:
        report.say(f'this machine has {here or "no"} GPU{"s" * (here > 1)}: what is said holds where {gpus} are')
    if here:
        has = torch.cuda.get_device_properties(0).total_memory
        report.say(f'{torch.cuda.get_device_name(0)}: {gib(has)}')
        if peak.peak > has:
            report.problem('train_dataloader.batch_size', f'needs {gib(peak.peak)} in phase {peak.phase}, the GPU has '
                           f'{gib(has)}', 'give a smaller batch and accumulate, or with_cp=True where the model has it')
    return peaks
