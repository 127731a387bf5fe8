"""Channels of necks and heads that must be those of the ViT's maps."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.vit import Arch

NECKS = dict(SimpleFeaturePyramid='in_channels', Feature2Pyramid='embed_dim')  # by the key of what they take
HEADS = ('decode_head', 'auxiliary_head')


def channel_problems(cfg: Config) -> Iterator[str]:
    """One line for each neck or head of another width than the maps of the ViTBackbone before it.

    torch would name sizes of a weight at the first step, and no key.
    """
    model = cfg.model.get('module', cfg.model)
    backbone, neck = model.get('backbone'), model.get('neck')
    if not isinstance(backbone, dict) or _kind(backbone) != 'ViTBackbone' or 'arch' not in backbone:
        return
    try:
        width = Arch.parse(backbone['arch']).embed_dim
    except (ValueError, TypeError):  # `model_problems` says so
        return
    takers = []
    if isinstance(neck, dict):
        takers = [('neck', neck, NECKS[_kind(neck)])] if _kind(neck) in NECKS else []
    if not neck or isinstance(neck, dict) and _kind(neck) == 'Feature2Pyramid':  # it keeps the width
        takers += [(place, head, 'in_channels') for place, head in _heads(model)]
    for place, node, key in takers:
        given = node.get(key, width)
        if any(channels != width for channels in (given if isinstance(given, list | tuple) else [given])):
            yield f'model.{place}.{key} is {given}, the maps of model.backbone have {width} channels: make them equal'


def _heads(model: dict) -> Iterator[tuple[str, dict]]:
    for name in HEADS:
        head = model.get(name)
        numbered = [(f'{name}.{i}', one) for i, one in enumerate(head)] if isinstance(head, list) else [(name, head)]
        yield from ((place, one) for place, one in numbered if isinstance(one, dict))


def _kind(node: dict) -> str:
    return str(node.get('type')).rpartition('.')[2]
