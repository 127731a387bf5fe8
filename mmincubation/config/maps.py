"""What a config says of a ViT's feature maps, and of the levels that its neck makes of them."""
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from mmengine.config import Config

from mmincubation.downstream.timm_vit import build_timm
from mmincubation.models.on_meta import inner_model
from mmincubation.registry import dicts_in, kind_of
from mmincubation.vit import Arch

from .signatures import setting, several

SCALES = dict(SimpleFeaturePyramid='scales', Feature2Pyramid='rescales', MultiLevelNeck='scales')
HEADS = ('decode_head', 'auxiliary_head')


class Maps(NamedTuple):
    """The channels of a ViT's maps, and the side of its patches in pixels, which is their stride; 0: not square."""

    width: int
    patch: int


def vit_maps(cfg: Config) -> Maps | None:
    """Return the maps of `model.backbone`; None if it is neither a ViTBackbone nor a TimmViT, or is wrong itself."""
    backbone = inner_model(cfg).get('backbone')
    try:
        if isinstance(backbone, dict) and kind_of(backbone) == 'ViTBackbone' and 'arch' in backbone:
            arch = Arch.parse(backbone['arch'])
            return Maps(arch.embed_dim, arch.patch_size)
        if isinstance(backbone, dict) and kind_of(backbone) == 'TimmViT':
            return _of_timm(backbone.get('name'), tuple((backbone.get('model_args') or {}).items()))
    except (ValueError, TypeError, AttributeError):  # other problems say so
        pass
    return None


@lru_cache
def _of_timm(name: str, model_args: tuple) -> Maps:
    """Build the first block alone, as shapes: it tells both, and takes little time."""
    with torch.device('meta'):
        vit = build_timm(name, None, 0., dict(model_args) | dict(depth=1))
    height, width = vit.patch_embed.patch_size
    return Maps(vit.embed_dim, height if height == width else 0)


def level_strides(cfg: Config, maps: Maps) -> list[float] | None:
    """Return the strides in pixels of the maps that the heads get, after the neck; None if it is an unknown one."""
    model = inner_model(cfg)
    neck, taps, scope = model.get('neck'), model['backbone'].get('out_indices'), cfg.get('default_scope')
    if not maps.patch or neck and not isinstance(neck, dict):
        return None
    if not neck:
        return [maps.patch] * len(taps) if isinstance(taps, list | tuple) else None
    if (kind := kind_of(neck)) in SCALES:
        scales = setting(neck, SCALES[kind], scope)
    else:  # mmdet's FPN keeps the sizes of the maps
        all_levels = kind == 'FPN' and not neck.get('start_level') and neck.get('end_level', -1) == -1
        scales = [1] * len(several(neck.get('in_channels'))) if all_levels else None
    if not scales or not all(isinstance(scale, int | float) and scale > 0 for scale in several(scales)):
        return None
    strides = [maps.patch / scale for scale in several(scales)]
    outs = setting(neck, 'num_outs', scope)
    while isinstance(outs, int) and len(strides) < outs:
        strides.append(2 * strides[-1])
    return strides


def window_warnings(cfg: Config) -> Iterator[str]:
    """A line for each ViTBackbone whose last block that is used has windows, as if numbered for another depth."""
    for place, node in dicts_in(cfg.get('model'), 'model'):
        taps, wide = node.get('out_indices'), node.get('global_blocks') or ()
        if kind_of(node) == 'ViTBackbone' and node.get('window_size') and taps and taps[-1] not in wide:
            yield f'{place}.global_blocks={tuple(wide)}: the last block, {taps[-1]}, has windows of ' \
                  f'{node["window_size"]} patches alone; spread the global blocks evenly and end with {taps[-1]}'


def heads_of(model: dict) -> Iterator[tuple[str, dict]]:
    """Yield (place, settings) of the heads of a segmentor; each of these keys may have several."""
    for name in HEADS:
        head = model.get(name)
        numbered = [(f'{name}.{i}', one) for i, one in enumerate(head)] if isinstance(head, list) else [(name, head)]
        yield from ((place, one) for place, one in numbered if isinstance(one, dict))
