"""Build the largest batch that a config can feed to its model, as shapes."""
from math import ceil, prod

import numpy as np
import torch

from mmincubation.registry import kind_of, nested_datasets

BOXES = 20  # objects assumed on each image; COCO has 7 on average, 93 at most


def transforms(loader: dict) -> list[dict]:
    """Return the transforms of a dataloader in the order in which they run; those of wrapped data sets come first."""
    return [t for dataset in [*nested_datasets(loader['dataset'])][::-1] for t in dataset.get('pipeline') or []]


def input_size(model: dict, loader: dict) -> tuple[int, int] | None:
    """Return (height, width) in pixels of the largest training input, None if it is not known or not bounded.

    The size comes from `arch` for classifiers and from the pipeline for other models. Where a pipeline only gives a
    frame, a landscape image is assumed.
    """
    if 'arch' in model:
        from mmincubation.vit import Arch
        return (Arch.parse(model['arch']).img_size, ) * 2
    preprocessor = model.get('data_preprocessor') or {}
    try:
        fixed = preprocessor.get('size')
        size = pair(fixed) if fixed else _after(transforms(loader), None)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):  # of transforms in other forms
        return None
    step = preprocessor.get('pad_size_divisor') or 1
    return size and tuple(ceil(side / step) * step for side in size)


def pair(scale) -> tuple:
    """Return the two sides that a number, or a pair, gives."""
    return (scale, scale) if isinstance(scale, int | float) else tuple(scale)


def _after(steps: list[dict], size: tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the size (height, width) after the transforms."""
    for step in steps:
        kind = kind_of(step)
        if kind in ('Resize', 'RandomResize', 'RandomChoiceResize', 'ResizeShortestEdge'):
            size = _largest(step, kind)
        elif kind == 'RandomCrop':
            size = _cropped(step, size)
        elif kind == 'Pad' and step.get('size'):
            size = _larger(size, pair(step['size'])[::-1])  # (width, height), as a scale
        elif kind == 'RandomChoice':
            branches = ([branch] if isinstance(branch, dict) else branch for branch in step['transforms'])
            size = max((_after(branch, size) for branch in branches), key=lambda s: prod(s or (0, )))
    return size


def _largest(step: dict, kind: str) -> tuple[int, int] | None:
    scales = step.get('scales', step.get('scale'))
    if not scales:
        return None
    several = isinstance(scales, list) if kind == 'RandomChoiceResize' else \
        isinstance(scales, list | tuple) and isinstance(scales[0], list | tuple)
    # mmcv writes a scale as (width, height).
    width, height = max(map(pair, scales if several else [scales]), key=prod)
    if 'ResizeShortestEdge' in (kind, str(step.get('resize_type')).rpartition('.')[2]):
        return step.get('max_size') and (min(width, height), step['max_size'])  # else the longer edge has no bound
    ratio = pair(step.get('ratio_range') or 1)[1] if kind == 'RandomResize' else 1
    if kind == 'Resize' and not step.get('keep_ratio'):
        return height, width
    # keep_ratio fits the image into the frame; a landscape image fills it.
    return round(min(width, height) * ratio), round(max(width, height) * ratio)


def _cropped(step: dict, size: tuple[int, int] | None) -> tuple[int, int] | None:
    crop = pair(step.get('crop_size', step.get('size')))
    # absolute_range draws each side between the two numbers.
    if step.get('crop_type') == 'absolute_range':
        crop = (max(crop), ) * 2
    if str(step.get('crop_type')).startswith('relative'):
        return size
    return crop if size is None else tuple(map(min, crop, size))


def _larger(size: tuple[int, int] | None, other: tuple[int, int]) -> tuple[int, int]:
    return other if size is None else tuple(map(max, size, other))


def loads_polygons(loader: dict) -> bool:
    """Return whether the masks of objects stay the file's polygons."""
    return any(step.get('poly2mask') is False for step in transforms(loader))


def make_batch(task: str, size: tuple[int, int], count: int, polygons: bool = False) -> dict:
    """Return `count` images of one size with labels, for a model's `forward(**batch, mode='loss')`.

    `task` is the config's default scope: `mmdet`, `mmseg`, or another one for classification. The masks of objects are
    polygons with `polygons`, else bitmaps. Images have the shape (count, 3, *size).
    """
    images = torch.empty(count, 3, *size)
    if task not in ('mmdet', 'mmseg'):
        return dict(inputs=images, labels=torch.zeros(count, dtype=torch.long))
    samples = [_detection_sample(size, polygons) if task == 'mmdet' else _segmentation_sample(size)
               for _ in range(count)]
    return dict(inputs=images, data_samples=samples)


def _detection_sample(size: tuple[int, int], polygons: bool):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks, PolygonMasks
    from mmengine.structures import InstanceData
    meta = dict(img_shape=size, ori_shape=size, pad_shape=size, batch_input_shape=size, scale_factor=(1., 1.))
    masks = PolygonMasks([[np.zeros(6)]] * BOXES, *size) if polygons else \
        BitmapMasks(np.zeros((BOXES, *size), np.uint8), *size)
    boxes = dict(masks=masks, bboxes=torch.zeros(BOXES, 4), labels=torch.zeros(BOXES, dtype=torch.long))
    ignored = dict(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
    sample = DetDataSample(metainfo=meta)
    sample.gt_instances, sample.ignored_instances = InstanceData(**boxes), InstanceData(**ignored)
    return sample


def _segmentation_sample(size: tuple[int, int]):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size, pad_shape=size))
    sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size, dtype=torch.long))
    return sample
