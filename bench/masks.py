"""Masks of COCO as bitmaps (`LoadAnnotations(poly2mask=True)`, mmdet's default) against polygons: time in the data
worker, bytes that a sample sends from there, time and memory in the step, and how exact the targets are.

python bench/masks.py [--schedule 1x|3x] [--images 24]

On synthetic annotations of COCO's statistics, through the schedule's own pipeline; 128 boxes near true ones on each
image, as many positive ones as the sampler takes at most. Processor time, in turn.
"""
import argparse
import logging
import pickle
import statistics
import sys
import tempfile
import time
import warnings
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.check.tracking import LiveBytes
from mmincubation.config.load import load_config
from mmincubation.resumable.draws import seeded
from tests.helpers.synthetic_coco import write_coco

BOXES, SIDE, FINER = 128, 28, 16


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


def boxes_near(truth, seed: int) -> tuple[Tensor, Tensor]:
    """Boxes that overlap true ones by about 50 to 100 %, and which."""
    rng = np.random.default_rng(seed)
    which = rng.integers(0, len(truth), BOXES)
    boxes = truth.bboxes.tensor.numpy()[which]
    sides = np.tile(boxes[:, 2:] - boxes[:, :2], 2)
    return torch.tensor(boxes + rng.normal(0, .08, boxes.shape) * sides, dtype=torch.float32), torch.tensor(which)


def targets(truth, boxes: Tensor, which: Tensor, side: int = SIDE) -> Tensor:
    """mmdet's targets of the boxes, (boxes, side, side)."""
    from mmdet.structures.mask.mask_target import mask_target_single
    return mask_target_single(boxes.clone(), which, truth.masks, Config(dict(mask_size=side)))


def exact_targets(truth, boxes: Tensor, which: Tensor) -> Tensor:
    """Pixels of which the polygons cover at least half, counted on a grid 16 times as fine."""
    return (F.avg_pool2d(targets(truth, boxes, which, SIDE * FINER)[:, None], FINER)[:, 0] >= .5).float()


def look(dataset, index: int) -> tuple[dict, object, Tensor]:
    """What one image costs in this form, its truth and its targets."""
    start = time.process_time()
    with seeded(0, index):
        sample = dataset[index % len(dataset)]
    loaded = time.process_time()
    truth = sample['data_samples'].gt_instances
    boxes = boxes_near(truth, index)
    begin = time.process_time()
    made = targets(truth, *boxes)
    end = time.process_time()
    with LiveBytes() as counter:
        targets(truth, *boxes)
    return dict(load=loaded - start, step=end - begin, peak=counter.peak,
                sent=len(pickle.dumps(truth.masks))), truth, made


def measure(built: dict, images: int) -> dict[str, dict[str, list]]:
    """Of each form and image: seconds of loading and of the targets, bytes, and the part of wrong pixels."""
    found = {form: dict(load=[], step=[], peak=[], sent=[], wrong=[]) for form in built}
    for i in range(images):
        seen = {form: look(dataset, i) for form, dataset in built.items()}
        exact = exact_targets(seen['polygons'][1], *boxes_near(seen['polygons'][1], i))
        for form, (costs, _, made) in seen.items():
            for key, value in dict(costs, wrong=(made != exact).float().mean().item()).items():
                found[form][key].append(value)
    return found


def report(found: dict) -> str:
    lines = ['| | bitmaps | polygons | ratio |', '|---|---|---|---|']
    for key, (what, scale) in dict(load=('loading, ms', 1e3), step=('targets in the step, ms', 1e3),
                                   peak=('torch\'s peak in the targets, MiB', 2**-20),
                                   sent=('masks sent to the step, MiB', 2**-20),
                                   wrong=('pixels of the targets that are wrong, %', 100)).items():
        a, b = (found[form][key] for form in ('bitmaps', 'polygons'))
        ratio = statistics.median(x / y for x, y in zip(a, b, strict=True) if y)
        lines.append(f'| {what} | {scale * statistics.median(a):.3g} | {scale * statistics.median(b):.3g} | '
                     f'{ratio:.3g} |')
    return '\n'.join(lines)


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    logging.disable(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--schedule', choices=['1x', '3x'], default='1x')
    parser.add_argument('--images', type=int, default=24)
    args = parser.parse_args()
    init_default_scope('mmdet')
    with tempfile.TemporaryDirectory() as folder:
        write_coco(Path(folder) / 'coco', args.images, size=(400, 641), per_image=7, crowds=1 / 30)
        print(report(measure(datasets(args.schedule, Path(folder) / 'coco'), args.images)))
