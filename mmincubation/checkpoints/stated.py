"""Read what `config.json` beside a weight file, of transformers or of timm, says of the function of the weights."""
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn

from mmincubation.errors import CheckpointError

from .hub import fetch_beside, is_hub

NAME = 'config.json'
GELU = ('gelu', 'gelu_python')  # transformers' names of the exact one
# transformers' key: the field of `Arch`.
SAME = dict(num_attention_heads='num_heads', layer_norm_eps='norm_eps')
POOLED = dict(vit='token', vit_msn='token')  # what the head reads, by transformers' model_type


@dataclass(frozen=True)
class Stated:
    """What `config.json` or a checkpoint states: fields of `Arch`, and `activation`. `source` says where it was found."""
    source: str
    fields: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_stated(path: str | Path, content: Mapping, tensors: Mapping[str, Tensor]) -> Stated | None:
    """Return what `config.json` beside `path`, or else the name of timm's model in `content`, states of `tensors`.

    `content` is what the file holds; timm's train.py stores the name as `arch`. A file of another network is not used.

    Raises:
        CheckpointError: it states a function that the plain ViT does not compute.
    """
    place, config = _config_beside(path)
    if isinstance(config, str):
        return Stated(place, notes=[config])
    if config and 'architecture' in config:
        args = dict(config.get('model_args') or {})
        pool = {'global_pool': config['global_pool']} if config.get('global_pool') else {}
        return _of_timm(f'{place}: architecture', str(config['architecture']), pool | args, tensors)
    if config and 'model_type' in config:
        return _of_transformers(place, config, tensors)
    import timm  # here: its models take a second
    if isinstance(name := content.get('arch'), str) and timm.is_model(name):
        args = getattr(content.get('args'), 'model_kwargs', None)
        return _of_timm(f'{path}: arch', name, dict(args) if isinstance(args, dict) else {}, tensors)
    return None


def _config_beside(path: str | Path) -> tuple[str, dict | str | None]:
    """Return the place of `config.json`, and its content, None if there is none, or a note on why it is not used."""
    if is_hub(path):
        place, file = f'{NAME} of the repository', fetch_beside(str(path), NAME)
    else:
        file = (Path(path) if Path(path).is_dir() else Path(path).parent) / NAME
        place = str(file)
    try:
        config = json.loads(file.read_text()) if file and file.is_file() else None
    except (OSError, ValueError, RecursionError) as error:
        return place, f'{place} cannot be read ({error}): not used'
    return place, config if isinstance(config, dict) else None


def _of_transformers(place: str, config: dict, tensors: Mapping[str, Tensor]) -> Stated:
    kind = config['model_type']
    config = next((inner for key in ('vision_config', 'backbone_config') if isinstance(inner := config.get(key), dict)),
                  config)
    width, depth = _width(tensors), _depth(tensors)
    stated = {key: config[key] for key in ('hidden_size', 'num_hidden_layers') if key in config}
    if stated not in ({}, dict(hidden_size=width, num_hidden_layers=depth)):
        return Stated(place, notes=[f'{place} describes another network ({_listed(stated)}, the file has hidden_size='
                                    f'{width}, num_hidden_layers={depth}): not used'])
    act = config.get('hidden_act', 'gelu')
    if act not in GELU:
        raise CheckpointError(f'{place}: hidden_act={act}, this ViT computes gelu, so its results would be others; give '
                              'the weights of a model with hidden_act=gelu')
    if config.get('use_swiglu_ffn'):
        raise CheckpointError(f'{place}: use_swiglu_ffn=true, this ViT has no gated MLPs; give the weights of a model '
                              'without them')
    fields = {ours: config[key] for key, ours in SAME.items() if isinstance(config.get(key), int | float)}
    fields |= dict(activation=act) if 'hidden_act' in config else {}
    if kind in POOLED:
        fields['global_pool'] = POOLED[kind]
    said = {key: config[key] for key in ('hidden_act', *SAME) if key in config}
    return Stated(place, fields, [f'{place}: {_listed(dict(model_type=kind) | said)}'])


def _of_timm(place: str, name: str, args: dict, tensors: Mapping[str, Tensor]) -> Stated | None:
    """Build timm's model `name` without memory, and read its function from its layers."""
    import timm
    from timm.models.vision_transformer import VisionTransformer
    if not timm.is_model(name):
        return Stated(place, notes=[f"{place}={name} is not in timm {timm.__version__}: not used"])
    # Nothing but sizes and switches: create_model would also load files that the arguments name.
    valid = set(signature(VisionTransformer.__init__).parameters) - {'self', 'device', 'dtype'}
    try:
        with torch.device('meta'):
            model = timm.model_entrypoint(name)(**{key: value for key, value in args.items() if key in valid})
    except Exception as error:  # arguments of another version, or wrong ones
        return Stated(place, notes=[f'{place}={name} cannot be built by timm {timm.__version__} ({error}): not used'])
    if (getattr(model, 'embed_dim', None), len(getattr(model, 'blocks', ()))) != (_width(tensors), _depth(tensors)):
        return Stated(place, notes=[f'{place}={name} has another width or depth than the file: not used'])
    if other := _other_function(model):
        raise CheckpointError(f'{place}={name} has {other}, which this ViT does not compute; give the weights of a plain '
                              'ViT')
    pooled = model.global_pool if isinstance(model.fc_norm, nn.Identity) else None
    fields = dict(activation='gelu', num_heads=model.blocks[0].attn.num_heads, norm_eps=model.blocks[0].norm1.eps)
    fields |= dict(global_pool=pooled) if pooled in ('token', 'avg') else {}
    return Stated(place, fields, [f'{place}={name}, in timm {timm.__version__} a plain ViT: '
                                  f'{_listed(fields)}'])


def _other_function(model: nn.Module) -> str | None:
    """Return in what timm's `model` differs from the plain ViT, as a class or a function; None if in nothing."""
    from timm.models import vision_transformer as timms
    if type(model) is not timms.VisionTransformer:
        return f'the class {type(model).__name__}'
    block = model.blocks[0]
    for part, plain in ((block, timms.Block), (block.attn, timms.Attention), (block.mlp, timms.Mlp)):
        if type(part) is not plain:
            return f'{type(part).__name__} instead of {plain.__name__}'
    if not isinstance(block.mlp.act, nn.GELU) or block.mlp.act.approximate != 'none':
        return f'the activation {block.mlp.act}'
    if not isinstance(block.norm1, nn.LayerNorm):
        return f'the norm {type(block.norm1).__name__}'
    identities = dict(norm_pre=model.norm_pre, q_norm=block.attn.q_norm, mlp_norm=block.mlp.norm)
    more = [name for name, part in identities.items() if not isinstance(part, nn.Identity)]
    more += [name for name in ('num_reg_tokens', 'pool_include_prefix') if getattr(model, name)]
    return more[0] if more else None


def _width(tensors: Mapping[str, Tensor]) -> int:
    return tensors['patch_embed.proj.weight'].shape[0]


def _depth(tensors: Mapping[str, Tensor]) -> int:
    return len({key.split('.')[1] for key in tensors if key.startswith('blocks.')})


def _listed(values: dict) -> str:
    return ', '.join(f'{key}={value:g}' if isinstance(value, float) else f'{key}={value}' for key, value in values.items())
