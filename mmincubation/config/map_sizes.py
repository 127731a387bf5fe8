"""Semantic segmentation: sizes of images that are no multiples of the strides, whose maps mmseg stretches."""
from collections.abc import Iterator
from math import ceil

from mmengine.config import Config

from mmincubation.models.on_meta import inner_model
from mmincubation.registry import kind_of, leaf_datasets

from .maps import heads_of, level_strides, vit_maps
from .signatures import setting, several

PLACE = 'model.data_preprocessor'
KEEP_SIZE = ('LoadImageFromFile', 'LoadAnnotations', 'RandomFlip', 'PackSegInputs')
WHY = 'maps then cover more or less than the image, mmseg stretches them to it, and predictions are shifted'


def fit_problems(cfg: Config, mode: str) -> Iterator[str]:
    """One line for each size in the config of a segmentor that is no multiple of the largest stride of its heads."""
    if not (unit := _unit(cfg)):
        return
    own, windows = inner_model(cfg)['data_preprocessor'], inner_model(cfg).get('test_cfg') or {}
    if mode == 'train':
        yield from _misfits(own, f'{PLACE}.', unit)
    if mode == 'train' and cfg.get('val_cfg') is None:
        return
    sizes = _sizes(cfg, f'{"test" if mode == "test" else "val"}_dataloader', unit)
    if windows.get('mode') == 'slide':
        yield from _misfits(dict(size=windows.get('crop_size')), 'model.test_cfg.crop_', unit)
    elif not sizes or not all(_fits(size, unit) for size in sizes.values()):
        yield from _misfits(own.get('test_cfg') or {}, f'{PLACE}.test_cfg.', unit)
        for place, size in sizes.items():
            if not own.get('test_cfg') and size and not _fits(size, unit):
                yield f'{place} makes images of {size[0]} x {size[1]}, no multiples of {unit}: {WHY}; {_remedy(unit)}'


def fit_warnings(cfg: Config) -> Iterator[str]:
    """A line where validation predicts whole images of any size; those of the files may all be right."""
    if cfg.get('val_cfg') is None or not (unit := _unit(cfg)):
        return
    model, sizes = inner_model(cfg), _sizes(cfg, 'val_dataloader', unit)
    whole = (model.get('test_cfg') or {}).get('mode', 'whole') == 'whole'
    if whole and not model['data_preprocessor'].get('test_cfg') and (not sizes or None in sizes.values()):
        yield f'{PLACE}: images of val_dataloader are not padded; where a side is no multiple of {unit}, {WHY}; ' \
              f'{_remedy(unit)}'


def _unit(cfg: Config) -> int:
    """Return the pixels of which all sides must be multiples: the largest stride that heads read; 0: not known."""
    maps, model, scope = vit_maps(cfg), inner_model(cfg), cfg.get('default_scope')
    if maps is None or kind_of(model.get('data_preprocessor') or {}) != 'SegDataPreProcessor':
        return 0
    levels, heads = level_strides(cfg, maps), [head for _, head in heads_of(model)]
    if not levels or not heads:
        return 0
    read = [several(setting(head, 'in_index', scope)) or range(len(levels)) for head in heads]  # or all of them
    strides = [levels[i] for i in set().union(*read) if -len(levels) <= i < len(levels)]
    return ceil(max(maps.patch, *strides))


def _misfits(node: dict, place: str, unit: int) -> Iterator[str]:
    size, divisor = node.get('size'), node.get('size_divisor')
    if isinstance(size, list | tuple) and not _fits(size, unit):
        right = tuple(ceil(side / unit) * unit for side in size)
        yield f'{place}size={tuple(size)}: give multiples of {unit}, such as {right}; {WHY}'
    if isinstance(divisor, int) and divisor % unit:
        yield f'{place}size_divisor={divisor}: give {unit}, or a multiple of it; {WHY}'


def _sizes(cfg: Config, loader: str, unit: int) -> dict[str, tuple[int, int] | None]:
    """Return (height, width) of the images by the place of their pipeline, None where they have several sizes."""
    data = (cfg.get(loader) or {}).get('dataset') or {}
    return {f'{place}.pipeline': _after(leaf.get('pipeline') or (), unit)
            for place, leaf in leaf_datasets(data, f'{loader}.dataset')}


def _after(steps: list[dict], unit: int) -> tuple[int, int] | None:
    size = None
    for step in steps:
        kind, scale, divisor = kind_of(step), step.get('scale'), step.get('size_divisor', 32)
        if kind == 'Resize' and scale and not step.get('keep_ratio'):
            size = tuple(scale)[::-1] if isinstance(scale, list | tuple) else (scale, scale)
        elif kind == 'ResizeToMultiple' or kind == 'Pad' and 'size_divisor' in step:
            size = (unit, unit) if isinstance(divisor, int) and divisor % unit == 0 else None
        elif kind not in KEEP_SIZE:
            size = None
    return size


def _fits(size, unit: int) -> bool:
    return size is not None and all(isinstance(side, int) and side % unit == 0 for side in size)


def _remedy(unit: int) -> str:
    return f'give {PLACE}.test_cfg=dict(size_divisor={unit})'
