"""Models as shapes: built without memory, and which of their weights depend on the number of classes."""
from collections.abc import Mapping
from copy import deepcopy

import torch
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Size, nn

from mmincubation.registry import dicts_in
from mmincubation.vit import Arch

COUNTS = ('num_classes', 'num_things_classes')


def build_on_meta(cfg: Mapping) -> nn.Module:
    """Build a config's model without memory and without weights; inside test-time augmentation, the model alone."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with torch.device('meta'):
        return revert_sync_batchnorm(MODELS.build(deepcopy(inner_model(cfg))))


def build_for_shapes(cfg: Mapping) -> nn.Module:
    """Build a config's model on shapes or, where it reads numbers as it is built (SegFormer's do), in memory."""
    try:
        return build_on_meta(cfg)
    except RuntimeError:  # torch's, for `.item()` of a shape
        return revert_sync_batchnorm(MODELS.build(deepcopy(inner_model(cfg))))


def inner_model(cfg: Mapping) -> dict:
    """Return the settings of a config's model, or of the one that it wraps."""
    return cfg['model'].get('module', cfg['model'])  # `module` is what test-time augmentation wraps


def classes_in_model(cfg: Mapping) -> int | None:
    """Return the number of classes that the config's model says, None if it says none."""
    return max((node[key] for node, key in _counts(deepcopy(inner_model(cfg)))), default=None)


def class_shapes(cfg: Mapping) -> dict[str, tuple[Size, Size]]:
    """Return the weights whose shape depends on the number of classes: name -> shape, and shape with one class more.

    They are found by building the model with each, so they are right for any head. Return nothing if that fails.
    """
    count, larger = classes_in_model(cfg), dict(cfg, model=deepcopy(inner_model(cfg)))
    for node, key in _counts(larger['model']):
        node[key] += node[key] == count
    try:
        own, other = ({k: v.shape for k, v in build_for_shapes(c).state_dict().items()} for c in (cfg, larger))
    except Exception:  # a head of someone else that cannot have another number of classes
        return {}
    return {name: (shape, other[name]) for name, shape in own.items() if name in other and shape != other[name]}


def _counts(model: dict) -> list[tuple[dict, str]]:
    """Return the dicts and keys that say a number of classes; a classifier's `arch` gets all of its fields."""
    if 'arch' in model:
        model['arch'] = Arch.parse(model['arch']).to_dict()
        return [(model['arch'], 'num_classes')]
    return [(node, key) for place, node in dicts_in(model, 'model') for key in COUNTS
            if isinstance(node.get(key), int) and not place.endswith('.arch')]  # a backbone has no classes
