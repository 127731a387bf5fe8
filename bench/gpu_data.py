"""The data path on this machine: python bench/gpu_data.py OUT.json [--dry].

Images a second that the loader of ImageNet's config gives from generated JPEGs (500 x 375), by its number of workers.
"""
import argparse
import json
import logging
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.benchmark import loading
from mmincubation.benchmark.run import environment
from mmincubation.config.load import load_config

CONFIG = 'configs/imagenet/vit_b_incub.py'


def rate(cfg, root: Path, count: int, workers: int, seconds: float, device: torch.device) -> float:
    """Return images a second from disk to the device, after the first two batches of each worker."""
    cfg.train_dataloader.num_workers = workers
    source = loading.batches(cfg, root, count, workers)
    for _ in range(2 * workers):
        next(source)['inputs'].to(device, non_blocking=True)
    start, number = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        next(source)['inputs'].to(device, non_blocking=True)
        number += count
    return number / (time.monotonic() - start)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path)
    parser.add_argument('--dry', action='store_true')
    args = parser.parse_args()
    logging.disable(logging.INFO)
    warnings.simplefilter('ignore')
    device = torch.device('cuda' if torch.cuda.is_available() and not args.dry else 'cpu')
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        loading.write_jpegs(Path(folder))
        found = {workers: rate(load_config(CONFIG), Path(folder), 16 if args.dry else 128, workers,
                               2 if args.dry else 10, device) for workers in {min(cores, 4), cores}}
    result = dict(environment=environment(device), images_a_second=found)
    args.out.write_text(json.dumps(result))
    print(found)


if __name__ == '__main__':
    main()
