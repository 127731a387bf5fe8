"""Read what `config.json` beside a weight file, of transformers or of timm, says of the function of the weights."""
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import signature
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from mmincubation.errors import CheckpointError

from .hub import SCHEME, fetch, local_file, neighbour
from .shards import weight_file

NAME = 'config.json'
GELU = ('gelu', 'gelu_python')  # transformers' names of the exact one
# transformers' key: the field of `Arch`.
SAME = dict(num_attention_heads='num_heads', layer_norm_eps='norm_eps')
POOLED = dict(vit='token', vit_msn='token')  # what the head reads, by transformers' model_type


@dataclass(frozen=True)
class Stated:
    """What `config.json` or a checkpoint states: fields of `Arch`, and `activation`; `source` is its place."""
    source: str
    fields: dict = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def read_stated(path: str | Path, content: Mapping, tensors: Mapping[str, Tensor]) -> Stated | None:
    """Return what `config.json` beside `path`, or else the name of timm's model in `content`, states of `tensors`.

    `content` is what the file holds; timm's train.py stores the name as `arch`. A file of another network is not used.

    Raises:
        CheckpointError: it states a function that the plain ViT does not compute.
    """
    place, config = json_beside(path)
    if isinstance(config, str):
        return Stated(place, notes=[config])
    if config and 'architecture' in config:
        pool = {'global_pool': config['global_pool']} if config.get('global_pool') else {}
        return _of_timm(f'{place}: architecture', str(config['architecture']), pool, config.get('model_args'), tensors)
    if config and 'model_type' in config:
        return _of_transformers(place, config, tensors)
    import timm  # here: its models take a second
    if isinstance(name := content.get('arch'), str) and timm.is_model(name):
        args = content.get('args')
        pool = {'global_pool': args.gp} if getattr(args, 'gp', None) else {}
        return _of_timm(f'{path}: arch', name, pool, getattr(args, 'model_kwargs', None), tensors)
    return None


def of_program(program: str, tensors: Mapping[str, Tensor]) -> Stated | None:
    """Return what the code of a program says of its file: MoCo v3's ViT-S has 12 heads, all others of this width 6."""
    if program != 'mocov3' or tensors['patch_embed.proj.weight'].shape[0] != 384:
        return None
    return Stated("MoCo v3's code", dict(num_heads=12), ["num_heads=12, as in MoCo v3's ViT-S"])


def json_beside(path: str | Path, name: str = NAME) -> tuple[str, dict | str | None]:
    """Return the place of `config.json`, and its content, None if there is none, or a note on why it is not used."""
    place = str(weight_file(path).with_name(name))
    if str(path).startswith(SCHEME):
        place = neighbour(path, local_file(path), name)
    try:
        file = fetch(place)[0] if place.startswith(SCHEME) else Path(place)
        config = json.loads(file.read_text()) if file.is_file() else None
    except CheckpointError:  # not there, or out of reach; the weights themselves are there
        return place, None
    except (OSError, ValueError, RecursionError) as error:
        return place, f'{place} cannot be read ({error}): not used'
    return place, config if isinstance(config, dict) else None


def _of_transformers(place: str, config: dict, tensors: Mapping[str, Tensor]) -> Stated:
    kind = config['model_type']
    config = next((inner for key in ('vision_config', 'backbone_config') if isinstance(inner := config.get(key), dict)),
                  config)
    shown = _shown(tensors)
    stated = {key: config[key] for key in shown if key in config}
    if stated != {key: shown[key] for key in stated}:
        return Stated(place, notes=[f'{place} describes another network ({_listed(stated)}; the file has '
                                    f'{_listed(shown)}): not used'])
    act = config.get('hidden_act') or 'gelu'
    if act not in GELU:
        raise CheckpointError(f'{place}: hidden_act={act}, this ViT computes gelu, so its results would be others; '
                              'give the weights of a model with hidden_act=gelu')
    if config.get('use_swiglu_ffn'):
        raise CheckpointError(f'{place}: use_swiglu_ffn=true, this ViT has no gated MLPs; give the weights of a model '
                              'without them')
    fields = {ours: config[key] for key, ours in SAME.items() if isinstance(config.get(key), int | float)}
    fields |= dict(activation=act) if config.get('hidden_act') else {}
    if kind in POOLED:
        fields['global_pool'] = POOLED[kind]
    said = {key: config[key] for key in ('hidden_act', *SAME) if key in config}
    return Stated(place, fields, [f'{place}: {_listed(dict(model_type=kind) | said)}'])


def _of_timm(place: str, name: str, pool: dict, args, tensors: Mapping[str, Tensor]) -> Stated:
    """Build timm's model `name` without memory, and read its function from its layers."""
    import timm
    from timm.models.vision_transformer import VisionTransformer
    if not timm.is_model(name):
        return Stated(place, notes=[f'{place}={name} is not in timm {timm.__version__}: not used'])
    # Nothing but sizes and switches: others of timm's arguments name files.
    valid = set(signature(VisionTransformer.__init__).parameters) - {'self', 'device', 'dtype'}
    args = {key: value for key, value in (pool | (args if isinstance(args, dict) else {})).items() if key in valid}
    shown = _shown(tensors)
    size = dict(embed_dim=shown['hidden_size'], depth=shown['num_hidden_layers'])
    try:
        with torch.device('meta'):  # of the file's depth, which an argument could make endless
            model = timm.model_entrypoint(name)(**args | (dict(depth=size['depth']) if 'depth' in args else {}))
        built = dict(embed_dim=model.embed_dim, depth=args.get('depth', len(model.blocks)))
    except Exception as error:  # arguments of another version, wrong ones, or no ViT
        return Stated(place, notes=[f'{place}={name} makes no ViT in timm {timm.__version__} ({error}): not used'])
    if built != size:
        return Stated(place, notes=[f'{place}={name} describes another network ({_listed(built)}; the file has '
                                    f'{_listed(size)}): not used'])
    if other := other_function(model):
        raise CheckpointError(f'{place}={name} has {other}, which this ViT does not compute; give the weights of a '
                              'plain ViT')
    pooled = model.global_pool if isinstance(model.fc_norm, nn.Identity) else None
    fields = dict(activation='gelu', num_heads=model.blocks[0].attn.num_heads, norm_eps=model.blocks[0].norm1.eps)
    fields |= dict(global_pool=pooled) if pooled in ('token', 'avg') else {}
    return Stated(place, fields, [f'{place}={name}, in timm {timm.__version__} a plain ViT: '
                                  f'{_listed(fields)}'])


def other_function(model: nn.Module) -> str | None:
    """Return in what timm's `model` differs from the plain ViT, as a class or a function; None if in nothing."""
    from timm.models import vision_transformer as timms
    if type(model) is not timms.VisionTransformer:
        return f'the class {type(model).__name__}'
    block = model.blocks[0]
    for part, plain in ((block, timms.Block), (block.attn, timms.Attention), (block.mlp, timms.Mlp)):
        if type(part) is not plain:
            return f'{type(part).__name__} instead of {plain.__name__}'
    values = torch.linspace(-4, 4, 99)  # not by its class: timm has several of each activation
    if not torch.equal(block.mlp.act(values.clone()), gelu(values)):
        return f'the activation {block.mlp.act}'
    if not isinstance(block.norm1, nn.LayerNorm):
        return f'the norm {type(block.norm1).__name__}'
    identities = dict(norm_pre=model.norm_pre, q_norm=block.attn.q_norm, mlp_norm=block.mlp.norm)
    more = [name for name, part in identities.items() if not isinstance(part, nn.Identity)]
    more += [name for name in ('num_reg_tokens', 'pool_include_prefix') if getattr(model, name)]
    return more[0] if more else None


def _shown(tensors: Mapping[str, Tensor]) -> dict:
    """Return what tensors under timm's names show, under transformers' names."""
    patch = tensors['patch_embed.proj.weight'].shape
    depth = len({key.split('.')[1] for key in tensors if key.startswith('blocks.')})
    return dict(hidden_size=patch[0], num_hidden_layers=depth, patch_size=patch[-1],
                qkv_bias='blocks.0.attn.qkv.bias' in tensors)


def _listed(values: dict) -> str:
    return ', '.join(f'{key}={f"{value:g}" if isinstance(value, float) else value}' for key, value in values.items())
