"""Mask AP of a detector that gives boxes alone, which fails at the first validation."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.registry import dicts_in

from .signatures import setting, several

MASKS = ('mask', 'panoptic', 'solo', 'condinst', 'yolact', 'segm', 'rtmdetins', 'seg_')

def mask_metric_problems(cfg: Config, mode: str) -> Iterator[str]:
    """A line for each COCO metric of masks where no part of the model makes any; `mode` is `'train'` or `'test'`."""
    kind = 'test' if mode == 'test' else 'val'
    if mode == 'train' and cfg.get('val_cfg') is None or not isinstance(cfg.get('model'), dict) or _makes_masks(cfg):
        return
    for place, node in dicts_in(cfg.get(f'{kind}_evaluator'), f'{kind}_evaluator'):
        if not str(node.get('type')).endswith('CocoMetric') or node.get('format_only'):
            continue
        if 'segm' in several(setting(node, 'metric', cfg.get('default_scope'))):
            yield f"{place}.metric has 'segm', and no part of the model makes masks (no key names a mask): " \
                  "give metric='bbox'"


def _makes_masks(cfg: Config) -> bool:
    """Whether a key or a type of the model names a mask, or what gives some; unknown models may."""
    for place, node in dicts_in(cfg.model, 'model'):
        words = ' '.join([place, *map(str, node), str(node.get('type'))]).lower()
        if any(word in words for word in MASKS):
            return True
    return False
