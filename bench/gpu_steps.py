"""Training steps of the real sizes on a GPU: python bench/gpu_steps.py OUT.jsonl [--seconds 150] [--first 0] [--dry].

A row is written as soon as it is measured. The jobs stand in the order of their worth; after `--seconds` no further one
starts; `--first` begins with a later one. `--dry` runs the same code on the CPU with small models. bench/gpu_page.py
makes tables of the rows.
"""
import argparse
import json
import logging
import sys
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.benchmark import measure as timing
from mmincubation.benchmark.batches import synthetic
from mmincubation.benchmark.flops import matrix_rates, summary
from mmincubation.benchmark.run import environment
from mmincubation.benchmark.steps import Phases, build
from mmincubation.config.load import load_config

TOP = 20  # kernels of a profile


@dataclass(frozen=True)
class Job:
    """Name what is measured: phases of a config, also `compiled`, beside the `baseline`, with a `profile`."""
    config: str
    phases: tuple[str, ...] = ('train', )
    compiled: bool = False
    baseline: bool = False
    profile: bool = False


B, L, H = (f'configs/imagenet/vit_{size}_incub.py' for size in 'blh')
RCNN_B, RCNN_H = (f'configs/coco/maskrcnn_vit_{size}_incub.py' for size in 'bh')
SEG_B, SEG_L = (f'configs/ade20k/upernet_vit_{size}_incub.py' for size in 'bl')
JOBS = [
    Job(L, ('module_0', 'finetune'), profile=True),
    Job(RCNN_B, baseline=True, profile=True),
    Job(H, ('module_0', 'finetune')),
    Job(B, ('module_0', 'finetune'), baseline=True),
    Job(L, ('module_0', 'finetune'), compiled=True),
    Job(SEG_L, baseline=True, profile=True),
    Job(RCNN_B, compiled=True),
    Job(H, ('module_0', 'finetune'), compiled=True),
    Job(B, ('meta', 'module_3', 'modules')),
    Job(L, ('meta', 'modules')),
    Job(RCNN_H, profile=True),
    Job(SEG_L, compiled=True),
    Job(B, ('module_0', 'finetune'), compiled=True),
    Job('configs/imagenet/vit_b_e2e.py'),
    Job(SEG_B, baseline=True),
    Job(RCNN_H, compiled=True),
    Job(H, ('meta', 'modules')),
]


def main() -> None:
    """Measure the jobs in turn; write rows, errors and the matrix rate as lines of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path)
    parser.add_argument('--seconds', type=float, default=150)
    parser.add_argument('--first', type=int, default=0)
    parser.add_argument('--dry', action='store_true')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter('ignore')
    device = torch.device('cuda' if torch.cuda.is_available() and not args.dry else 'cpu')
    end = time.monotonic() + args.seconds
    with open(args.out, 'a') as file:
        def write(**row) -> None:
            file.write(json.dumps(row) + '\n')
            file.flush()
            said = row.get('error') or row.get('phase') or 'matrix rate', row.get('config', ''), row.get('variant', '')
            print(*said, f'{row.get("median", 0):.1f} ms, {end - time.monotonic():.0f} s left', flush=True)

        side = 256 if args.dry else None
        rate = {str(dtype)[6:]: summary(matrix_rates(device, dtype, side=side))
                for dtype in (torch.float32, torch.bfloat16)}
        write(environment=environment(device), matrix_rate=rate)
        for job in JOBS[args.first:]:
            if time.monotonic() < end:
                run_job(job, device, args.dry, write)
    print('done' if time.monotonic() < end else 'out of time')


def run_job(job: Job, device: torch.device, dry: bool, write) -> None:
    """Measure one job; an error becomes a line, and the next job goes on."""
    for phase in job.phases:
        try:
            for row in rows(job, phase, device, dry):
                write(**row)
        except Exception as error:
            write(config=job.config, phase=phase, compiled=job.compiled,
                  error=f'{type(error).__name__}: {error}'[:500], trace=traceback.format_exc()[-3000:])
        if device.type == 'cuda':
            torch.cuda.empty_cache()


def rows(job: Job, phase: str, device: torch.device, dry: bool):
    """Yield the rows of a phase: `measure`'s, with the syncs that CUDA's debug mode sees and the top kernels."""
    cfg = load_config(job.config)
    (cfg.model.get('backbone') or {}).pop('init_cfg', None)
    cfg = tiny(cfg) if dry else cfg
    if job.compiled:
        cfg.compile = dict(backend='aot_eager') if dry else True
    options = timing.Options(device, [phase], 2 if dry else None, job.baseline, 1 if dry else 3)
    found = timing.measure_config(job.config, cfg, options, lambda line: None)
    for row in found:
        yield row | dict(compiled=job.compiled)
    if not job.compiled:
        yield dict(config=job.config, phase=phase, variant='details', compiled=False,
                   **details(cfg, phase, options, job.profile))


def details(cfg: Config, phase: str, options: timing.Options, with_profile: bool) -> dict:
    """Return host syncs and, if asked for, the kernels of a step, after three steps of warm-up."""
    count, size = timing.batch_of(cfg, options)
    step = Phases(cfg).ours(build(cfg, options.device), phase, synthetic(cfg, size, count))
    for _ in range(3):
        step()
    found = dict(syncs=syncs(step, options.device))
    if with_profile:
        found['kernels'] = kernels(step, options.device)
    return found


def syncs(step, device: torch.device) -> dict[str, int]:
    """Return how often a step makes the host wait, by place, as CUDA's debug mode warns of it."""
    if device.type != 'cuda':
        return {}
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            step()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    places = [f'{Path(w.filename).parent.name}/{Path(w.filename).name}:{w.lineno}' for w in caught
              if 'synchroniz' in str(w.message)]
    return dict(Counter(places).most_common())


def kernels(step, device: torch.device) -> list[dict]:
    """Return the kernels (on a CPU the operators) that take most of a step: name, calls, ms, share."""
    cuda = device.type == 'cuda'
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as prof:
        step()
        if cuda:
            torch.cuda.synchronize()
    key = 'self_device_time_total' if cuda else 'self_cpu_time_total'
    events = sorted(prof.key_averages(), key=lambda e: -getattr(e, key))
    whole = sum(getattr(e, key) for e in events) or 1
    return [dict(name=e.key[:120], calls=e.count, ms=getattr(e, key) / 1000, share=getattr(e, key) / whole)
            for e in events[:TOP]]


def tiny(cfg: Config) -> Config:
    """Return a config whose ViT and images are small; the code that it runs is the same."""
    from tests.helpers.shrink import shrink
    return shrink(cfg, Path('data'))


if __name__ == '__main__':
    main()
