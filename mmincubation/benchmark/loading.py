"""Measure how long a step waits for its data, with the config's own loader on real JPEGs."""
import os
import statistics
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from time import perf_counter

import numpy as np
from mmengine.config import Config
from PIL import Image

from mmincubation.engine.runner import ToolRunner
from mmincubation.resumable.batches import resumable_loader

from .flops import synchronize

IMAGES, CLASSES, SIZE = 512, 4, (500, 375)  # ImageNet's usual size
NAMES = 16384  # of them: an epoch has some batches, also for 8 ranks of 256 images


def write_jpegs(root: Path) -> None:
    """Write smooth noise with the pixels and about the bytes of ImageNet's images: `root`/<class>/<i>.jpg.

    Each image has many names, as hard links; the loader reads and decodes it under each of them.
    """
    for i in range(IMAGES):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize(SIZE, Image.Resampling.BICUBIC), np.int16)
        grain = smooth + rng.integers(-12, 13, (*SIZE[::-1], 1))
        path = root / f'n{i % CLASSES:08}' / f'{i}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grain.clip(0, 255).astype(np.uint8)).save(path, quality=90)
        for name in range(i + IMAGES, NAMES, IMAGES):
            os.link(path, path.with_name(f'{name}.jpg'))


def batches(cfg: Config, root: Path, count: int, workers: int) -> Iterator[dict]:
    """Yield batches of `count` images below `root` without end, from the config's loader with at most `workers`
    workers.
    """
    loader = deepcopy(cfg.train_dataloader)
    loader.batch_size, loader.num_workers = count, min(loader.num_workers, workers)
    loader.persistent_workers = loader.num_workers > 0
    loader.dataset.type, loader.dataset.root = 'mmincubation.ImageFolder', str(root)
    loader = resumable_loader(ToolRunner.build_dataloader(loader, seed=0), seed=0, endless=True)
    loader.batch_sampler.seek(0)
    return iter(loader)


def wait(step, source: Iterator[dict], repeats: int) -> float:
    """Return the median milliseconds that a step waits for its batch, of `repeats` steps.

    The loader goes on while a step runs.
    """
    waits = []
    for _ in range(repeats + 1):  # the first is dropped: the workers have had time to get ahead
        start = perf_counter()
        batch = next(source)
        waits.append(1000 * (perf_counter() - start))
        step.feed(batch)
        step()
        synchronize(step.device)
    return statistics.median(waits[1:])
