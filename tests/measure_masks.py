"""Masks of COCO as bitmaps (`LoadAnnotations(poly2mask=True)`, mmdet's default) against polygons: time in the data
worker, time and memory in the step, and how far the targets agree.

python -m tests.measure_masks [--schedule 1x|3x] [--images 24] [--runs 3]

On synthetic annotations of COCO's statistics, through the schedule's own pipeline; 128 boxes near true ones on each
image, which is as many positive ones as the sampler takes at most.
"""
import argparse
import logging
import statistics
import tempfile
import time
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import DATASETS, init_default_scope

from mmincubation.check.tracking import LiveBytes
from mmincubation.engine.config_check import load_config
from mmincubation.exact.draws import seeded

from .synthetic_coco import write_coco

BOXES = 128


def datasets(schedule: str, root: Path) -> dict[str, object]:
    """The training set with masks in both forms."""
    name = 'configs/coco/maskrcnn_vit_b_incub' + ('_3x' if schedule == '3x' else '')
    cfg = load_config(f'{name}.py').train_dataloader.dataset
    cfg.data_root = str(root)
    built = {}
    for form, poly2mask in (('bitmaps', True), ('polygons', False)):
        cfg = deepcopy(cfg)
        next(t for t in cfg.pipeline if t.type == 'LoadAnnotations').poly2mask = poly2mask
        built[form] = DATASETS.build(cfg)
    return built


def boxes_near(truth, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes that overlap true ones by about 50 to 100 %, and which."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(truth), BOXES)
    boxes = truth.bboxes.tensor.numpy()[which]
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return torch.tensor(boxes + rng.normal(0, .08, boxes.shape) * sides, dtype=torch.float32), torch.tensor(which)


def targets(truth, seed: int) -> tuple[torch.Tensor, float, int]:
    """The 28 x 28 targets of an image, the processor's seconds they took, and torch's bytes at the peak."""
    from mmdet.structures.mask.mask_target import mask_target_single
    boxes, which = boxes_near(truth, seed)
    start = time.process_time()
    made = mask_target_single(boxes, which, truth.masks, Config(dict(mask_size=28)))
    seconds = time.process_time() - start
    with LiveBytes() as counter:
        mask_target_single(boxes, which, truth.masks, ConfigDict(mask_size=28))
    return made, seconds, counter.peak


def measure(built: dict, images: int) -> dict[str, dict[str, list]]:
    """Of each form and image: seconds of loading and of the targets, bytes, and the targets."""
    found = {form: dict(load=[], step=[], peak=[], made=[]) for form in built}
    for i in range(images):
        for form, dataset in built.items():
            start = time.process_time()
            with seeded(0, i):
                sample = dataset[i % len(dataset)]
            row = found[form]
            row['load'].append(time.process_time() - start)
            made, seconds, peak = targets(sample['data_samples'].gt_instances, i)
            for key, value in dict(step=seconds, peak=peak, made=made).items():
                row[key].append(value)
    return found


def report(found: dict) -> str:
    ratio = {key: statistics.median(a / b for a, b in zip(found['bitmaps'][key], found['polygons'][key], strict=True))
             for key in ('load', 'step')}
    other = torch.cat(found['bitmaps']['made']) != torch.cat(found['polygons']['made'])
    peaks = {form: max(rows['peak']) / 2**20 for form, rows in found.items()}
    return (f'bitmaps / polygons, median over images: loading {ratio["load"]:.2f}, targets {ratio["step"]:.2f}; '
            f'peak of the targets {peaks["bitmaps"]:.0f} and {peaks["polygons"]:.1f} MiB; '
            f'ms of loading {1e3 * statistics.median(found["bitmaps"]["load"]):.0f} and '
            f'{1e3 * statistics.median(found["polygons"]["load"]):.0f}, of targets '
            f'{1e3 * statistics.median(found["bitmaps"]["step"]):.1f} and '
            f'{1e3 * statistics.median(found["polygons"]["step"]):.1f}; '
            f'{100 * other.float().mean():.2f} % of the pixels of the targets differ')


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    logging.disable(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--schedule', choices=['1x', '3x'], default='1x')
    parser.add_argument('--images', type=int, default=24)
    parser.add_argument('--runs', type=int, default=3)
    args = parser.parse_args()
    init_default_scope('mmdet')
    with tempfile.TemporaryDirectory() as folder:
        write_coco(Path(folder) / 'coco', args.images, size=(400, 641), per_image=7, crowds=1 / 30)
        built = datasets(args.schedule, Path(folder) / 'coco')
        for _ in range(args.runs):
            print(report(measure(built, args.images)), flush=True)
