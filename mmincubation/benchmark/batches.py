"""Make batches in memory as the loaders of classifiers, detectors and segmentors give them: uint8, with labels."""
from math import ceil

import numpy as np
import torch
from mmengine.config import Config

from mmincubation.check.batches import input_size, loads_polygons, make_batch
from mmincubation.config.classes import class_counts

OBJECTS, CORNERS = 7, 32  # on an image, COCO's mean; of a mask's polygon


def image_size(cfg: Config, shrink: int = 1) -> tuple[int, int]:
    """Return (height, width) in pixels of a config's largest training image.

    The sides of dense tasks are divided by `shrink` and rounded up to multiples of 32.

    Raises:
        ValueError: nothing in the pipeline bounds the size of the images.
    """
    size = input_size(cfg.model, cfg.train_dataloader)
    if size is None:
        raise ValueError('train_dataloader: nothing in the pipeline bounds the size of the images')
    return size if 'arch' in cfg.model else tuple(ceil(side / shrink / 32) * 32 for side in size)


def synthetic(cfg: Config, size: tuple[int, int], count: int, seed: int = 0) -> dict:
    """Return a batch of `count` images of noise with plausible labels, for a model's `train_step`.

    `size` is (height, width) in pixels.
    """
    rng = np.random.default_rng(seed)
    scope = cfg.get('default_scope')
    images = torch.from_numpy(rng.integers(0, 256, (count, 3, *size), dtype=np.uint8))
    if torch.cuda.is_available():
        images = images.pin_memory()
    if scope not in ('mmdet', 'mmseg'):
        return dict(inputs=images, labels=torch.from_numpy(rng.integers(0, _classes(cfg), count)))
    samples = make_batch(scope, size, count)['data_samples']
    for sample in samples:
        (_objects if scope == 'mmdet' else _labels)(sample, size, rng, cfg)
    return dict(inputs=list(images), data_samples=samples)


def _classes(cfg: Config) -> int:
    """Return the number of classes of the part of the model that decides it; 1 if none says it."""
    return next((count for _, count in class_counts(cfg.model, cfg.get('default_scope') or 'mmengine')), 1)


def _objects(sample, size: tuple[int, int], rng, cfg: Config) -> None:
    """Add boxes of 10 to 50 % of a side, with ellipses inside as masks, in the form that the pipeline gives."""
    from mmdet.structures.mask import BitmapMasks, PolygonMasks
    from mmengine.structures import InstanceData
    corners = rng.uniform(0, .5, (OBJECTS, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(.1, .5, corners.shape)], 1) * [*size[::-1], *size[::-1]]
    around = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    circle = np.stack([np.cos(around), np.sin(around)], 1) / 2 + .5
    masks = PolygonMasks([[(box[:2] + circle * (box[2:] - box[:2])).ravel()] for box in boxes], *size)
    if not loads_polygons(cfg.train_dataloader):
        masks = BitmapMasks(masks.to_ndarray(), *size)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32), masks=masks,
        labels=torch.from_numpy(rng.integers(0, _classes(cfg), OBJECTS)))


def _labels(sample, size: tuple[int, int], rng, cfg: Config) -> None:
    """Add label squares of 32 pixels, one in ten of them without a label."""
    grid = rng.integers(0, _classes(cfg), [ceil(side / 32) for side in size])
    grid[rng.random(grid.shape) < .1] = 255
    full = grid.repeat(32, 0).repeat(32, 1)[:size[0], :size[1]]
    sample.gt_sem_seg.data = torch.from_numpy(full)[None]
