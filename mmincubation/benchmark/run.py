"""Run tools/benchmark.py from its arguments to a table and a file."""
import json
import logging
import os
import re
import sys
import warnings
from argparse import Namespace
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mmengine.dist import get_world_size, is_main_process

from mmincubation.atomic import write_atomic
from mmincubation.engine.ranks import close_process_group
from mmincubation.errors import CheckpointError, ConfigError
from mmincubation.provenance import git_commit, hardware, versions

from .flops import SIDE, matrix_rates, summary
from .loading import write_jpegs
from .measure import Options, measure, prepare, ratios
from .table import render, valid_result

STANDARD = ('configs/imagenet/vit_b_incub.py', 'configs/imagenet/vit_b_e2e.py', 'configs/coco/maskrcnn_vit_b_incub.py',
            'configs/ade20k/upernet_vit_b_incub.py')


def main(args: Namespace) -> int:
    """Measure, print and write the result; return the exit code."""
    logging.disable(logging.INFO)
    warnings.simplefilter('ignore')
    try:
        result = _measure(args, _device(args.device))
    except (CheckpointError, ConfigError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if is_main_process():
        out = args.out or Path('results/benchmarks') / f'{file_name(result["environment"])}.json'
        write_atomic(out, (json.dumps(valid_result(result), indent=1) + '\n').encode())
        print(render(result), f'\nwritten to {out}', sep='\n')
    close_process_group()
    return 0


def _measure(args: Namespace, device: torch.device) -> dict:
    def say(line: str) -> None:
        if is_main_process():
            print(line, file=sys.stderr, flush=True)

    with ExitStack() as stack:
        folder = None
        if args.data:
            folder = Path(stack.enter_context(TemporaryDirectory()))
            write_jpegs(folder)
        options = Options(device, args.phases, args.batch_size, args.baseline, args.repeats, folder,
                          len(os.sched_getaffinity(0)) // get_world_size())
        configs = args.configs or STANDARD
        for config in configs:  # all mistakes before the first minute
            prepare(config, options)
        rates = {dtype: matrix_rates(device, dtype) for dtype in (torch.float32, torch.bfloat16)}
        rows = [row for config in configs for row in measure(config, options, say)]
    found = {str(dtype).removeprefix('torch.'): dict(  # before and after: a device may grow warm, or busy
        side=SIDE[device.type], **summary(before + matrix_rates(device, dtype))) for dtype, before in rates.items()}
    return dict(environment=environment(device), matrix_rate=found, rows=rows, ratios=ratios(rows))


def _device(name: str) -> torch.device:
    """Return the device of this rank; under torchrun, create its process group."""
    kind = name if name != 'auto' else 'cuda' if torch.cuda.is_available() else 'cpu'
    if kind == 'cuda' and not torch.cuda.is_available():
        raise ConfigError('--device cuda: torch sees no GPU; leave it out, or give --device cpu')
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        torch.distributed.init_process_group('nccl' if kind == 'cuda' else 'gloo')
    if kind == 'cuda':
        torch.cuda.set_device(int(os.environ.get('LOCAL_RANK', 0)))
        return torch.device('cuda', torch.cuda.current_device())
    return torch.device('cpu')


def environment(device: torch.device) -> dict:
    """Return device, cores, threads, ranks, versions, commit, date and command of a measurement."""
    return dict(device=hardware() if device.type == 'cuda' else cpu_name(), cores=len(os.sched_getaffinity(0)),
                threads=torch.get_num_threads(), ranks=get_world_size(), versions=versions(), commit=git_commit(),
                date=datetime.now(UTC).strftime('%Y-%m-%d'), command=' '.join(['python', *sys.argv]))


def cpu_name() -> str:
    """Return the CPU's name, on machines with a GPU too."""
    found = re.search(r'model name\s*:\s*(.+)', Path('/proc/cpuinfo').read_text())
    return found[1].strip() if found else os.uname().machine


def file_name(place: dict) -> str:
    """Return a name for the file of a device; several ranks are part of it."""
    words = f'{place["device"]} {place["ranks"]} ranks' if place['ranks'] > 1 else place['device']
    return re.sub('[^a-z0-9]+', '-', words.lower()).strip('-')
