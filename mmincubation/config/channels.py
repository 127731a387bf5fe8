"""Channels of necks and heads that must be those of the ViT's maps."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.models.on_meta import inner_model
from mmincubation.registry import kind_of

from .maps import heads_of, vit_maps

NECKS = dict(SimpleFeaturePyramid='in_channels', Feature2Pyramid='embed_dim')  # by the key of what they take


def channel_problems(cfg: Config) -> Iterator[str]:
    """One line for each neck or head of another width than the maps of the ViTBackbone or TimmViT before it.

    torch would name sizes of a weight at the first step, and no key.
    """
    if (maps := vit_maps(cfg)) is None:
        return
    model, width = inner_model(cfg), maps.width
    neck, takers = model.get('neck'), []
    if isinstance(neck, dict):
        takers = [('neck', neck, NECKS[kind_of(neck)])] if kind_of(neck) in NECKS else []
    if not neck or isinstance(neck, dict) and kind_of(neck) == 'Feature2Pyramid':  # it keeps the width
        takers += [(place, head, 'in_channels') for place, head in heads_of(model)]
    for place, node, key in takers:
        given = node.get(key, width)
        if any(channels != width for channels in (given if isinstance(given, list | tuple) else [given])):
            yield f'model.{place}.{key} is {given}, the maps of model.backbone have {width} channels: make them equal'
