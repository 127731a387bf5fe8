"""Semantic segmentation: how images are predicted, scored and padded, which fails only at the first validation."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.registry import dicts_in, kind_of

from .map_sizes import fit_problems
from .scores import IOU_SCORES
from .signatures import resolve, setting, several


def window_problems(cfg: Config, mode: str) -> Iterator[str]:
    """All of them; `mode` is `'train'` or `'test'`."""
    scope = cfg.get('default_scope') or 'mmengine'
    if is_segmentor(cfg, scope):
        if mode == 'test' or cfg.get('val_cfg') is not None:
            yield from slide_problems(cfg.model.get('test_cfg') or {})
        if mode == 'train':
            yield from crop_problems(cfg)
        yield from fit_problems(cfg, mode)
    kind = 'test' if mode == 'test' else 'val'
    for place, node in dicts_in(cfg.get(f'{kind}_evaluator'), f'{kind}_evaluator'):
        if kind_of(node) == 'IoUMetric':
            wrong = [name for name in several(setting(node, 'iou_metrics', scope) or None) if name not in IOU_SCORES]
            if wrong:
                yield f'{place}.iou_metrics has {wrong[0]!r}: IoUMetric knows {", ".join(IOU_SCORES)}'


def is_segmentor(cfg: Config, scope: str) -> bool:
    """Whether the model is one of mmseg's that may slide a window; its depth estimator has a mode more."""
    name = (cfg.get('model') or {}).get('type')
    return isinstance(name, str) and any(hasattr(cls, 'slide_inference') and not hasattr(cls, 'slide_flip_inference')
                                         for _, cls in resolve(name, scope))


def slide_problems(given: dict) -> Iterator[str]:
    """Windows that mmseg cannot slide."""
    mode = given.get('mode', 'whole')
    if mode not in ('whole', 'slide'):
        yield f"model.test_cfg.mode={mode!r}: give 'whole' or 'slide'"
    if mode != 'slide':
        return
    if missing := [key for key in ('crop_size', 'stride') if given.get(key) is None]:
        yield f"model.test_cfg: mode='slide' needs {' and '.join(missing)}, as (height, width); or give mode='whole'"
        return
    wrong = [key for key in ('crop_size', 'stride') if not _is_pair(given[key])]
    if wrong:
        yield f'model.test_cfg.{wrong[0]}={given[wrong[0]]!r}: give (height, width), two whole numbers above 0'
    elif any(step > side for step, side in zip(given['stride'], given['crop_size'], strict=True)):
        step, side = (tuple(given[key]) for key in ('stride', 'crop_size'))
        yield f'model.test_cfg: stride={step} is larger than crop_size={side}, ' \
              'and pixels between the windows have no prediction: give a stride up to crop_size'


def _is_pair(given) -> bool:
    return isinstance(given, list | tuple) and len(given) == 2 and \
        all(isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in given)


def crop_problems(cfg: Config) -> Iterator[str]:
    """Crops of training that are larger than the size to which the model pads a batch."""
    size = (cfg.model.get('data_preprocessor') or {}).get('size')
    if not _is_pair(size):
        return
    for place, step in dicts_in(cfg.get('train_dataloader'), 'train_dataloader'):
        if kind_of(step) != 'RandomCrop' or 'crop_size' not in step:
            continue
        crop = step['crop_size']
        sides = (crop, crop) if isinstance(crop, int) else tuple(crop)
        if _is_pair(sides) and (sides[0] > size[0] or sides[1] > size[1]):
            yield f'{place}.crop_size is {sides}, larger than model.data_preprocessor.size={tuple(size)}: ' \
                  'make them equal'
