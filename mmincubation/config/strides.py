"""Strides of anchors and RoIs that must be those of the levels that a pyramid makes of a ViT's maps."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.models.on_meta import inner_model
from mmincubation.registry import dicts_in, kind_of

from .maps import level_strides, vit_maps

EXTRACTORS = ('bbox_roi_extractor', 'mask_roi_extractor')  # others may read one level alone
ANCHORS = ('anchor_generator', 'prior_generator')


def stride_problems(cfg: Config) -> Iterator[str]:
    """One line for a detector whose anchors or RoIs are placed for maps of other strides than it has.

    Nothing else would say so: with too small strides most of each image has no anchor.
    """
    maps = vit_maps(cfg)
    levels = level_strides(cfg, maps) if maps else None
    if not levels:
        return
    wrong = [(place, given, wanted) for place, given, wanted in _placed(inner_model(cfg), levels)
             if [*map(_sides, given)] != [*map(_sides, wanted)]]
    if not wrong:
        return
    place, given, wanted = wrong[0]
    rest = ', '.join(f'{where}={_list(right)}' for where, _, right in wrong[1:])
    fit = maps.patch * given[0] / levels[0] if isinstance(given[0], int | float) else 0
    patch = ''
    if fit and fit % 1 == 0 and [stride * fit / maps.patch for stride in wanted] == [*given]:
        key = 'model_args' if kind_of(inner_model(cfg)['backbone']) == 'TimmViT' else 'arch'
        patch = f'; or give model.backbone.{key} patch_size={fit:g}, and the patch kernel is resized'
    yield f'{place} is {list(given)}, but patches of {maps.patch} pixels make maps of strides {_list(levels)}: give ' \
          f'{place}={_list(wanted)}' + f', {rest}' * bool(rest) + patch


def _placed(model: dict, levels: list[float]) -> Iterator[tuple[str, list, list[float]]]:
    """Yield (place, strides, what they must be): heads place anchors on all maps, RoIs are read from the first."""
    for name in ('rpn_head', 'bbox_head'):
        for place, node in dicts_in(model.get(name), f'model.{name}'):
            if (place == f'model.{name}' or place.endswith(ANCHORS)) and _is_list(node.get('strides')):
                yield f'{place}.strides', node['strides'], levels
    for place, node in dicts_in(model.get('roi_head'), 'model.roi_head'):
        if any(name in place.split('.') for name in EXTRACTORS) and _is_list(given := node.get('featmap_strides')):
            yield f'{place}.featmap_strides', given, levels[:len(given)]


def _is_list(given) -> bool:
    return isinstance(given, list | tuple) and len(given) > 0


def _sides(stride) -> tuple:
    """Return (width, height) of a stride, which may be one number."""
    return tuple(stride) if isinstance(stride, list | tuple) else (stride, stride)


def _list(strides: list[float]) -> str:
    return f'[{", ".join(f"{stride:g}" for stride in strides)}]'
