"""Read a file for one of timm's own ViTs: found and read safely as for the plain ViT, renamed and resized by timm."""
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO

import timm
from timm.models import vision_transformer
from torch import Tensor, nn

from mmincubation.errors import CheckpointError

from .files import read_tensors, require_finite
from .formats import LEFT_OUT, refuse_unfinished, require_floating
from .load import first_names, load_strict
from .networks import name_network, way_in
from .stated import json_beside
from .wrappings import find_vit, largest_dict

# What a backbone lacks: classifiers and their norms, pooling. `LEFT_OUT` is what only pre-training has.
DROPPED = ('norm', 'fc_norm', 'pre_logits', 'head', 'head_dist', 'attn_pool', 'lm_head')


def load_timm(vit: nn.Module, name: str, source: str, prefix: str | None = None) -> dict:
    """Load a file strictly into `vit`, timm's model `name` without norm and head; return the report of `load_strict`.

    timm's own `checkpoint_filter_fn` renames the keys of the authors (DINOv2, DINOv3, EVA, CLIP), and resizes position
    embedding and patch kernel. `prefix` chooses among several ViTs in the file, see `find_vit`.

    Raises:
        CheckpointError: the file cannot be read, is of another model, or does not match.
    """
    content, header = read_tensors(source)
    refuse_unfinished(source, content, header)
    notes = _require_name(name, source, content)
    try:
        found, where = find_vit(content, prefix)
    except CheckpointError as error:
        raise CheckpointError(f'{source}: {error}') from error
    given = found.vit() if found else largest_dict(content)
    tensors = {key: value for key, value in _converted(vit, name, given, source).items() if not LEFT_OUT.fullmatch(key)}
    loaded = {key: value for key, value in tensors.items() if key in vit.state_dict()}
    if not loaded:
        raise CheckpointError(f'{source}: has neither the names of {name} in timm nor others that timm converts; give '
                              f"timm's file. Its first keys are {first_names([*given])}")
    require_finite(loaded, source)
    require_floating(loaded, source)
    changed = [key for key, value in given.items() if all(value is not other for other in tensors.values())]
    notes += [f'left out, converted or resized by timm: {first_names(changed)}'] * bool(changed)
    report = load_strict(vit, tensors, source=source, drop=DROPPED)
    return report | dict(coverage='; '.join([report['coverage'], *where, *notes]))


def _require_name(name: str, source: str, content: Mapping) -> list[str]:
    """Refuse a file that was made for another model of timm; return what is said of it. Equal shapes prove nothing.

    timm's files have their model's name in `config.json` beside them, or as `arch` inside (its train.py).
    """
    place, config = json_beside(source)
    if isinstance(config, str):
        return [config]
    said, place = (config or {}).get('architecture'), f'{place}: architecture'
    if said is None:
        said, place = content.get('arch'), f'{source}: arch'
    if not isinstance(said, str) or not timm.is_model(said):  # MoCo's files have another `arch`
        return []
    if said.split('.')[0] != name.split('.')[0]:
        raise CheckpointError(f'{place}={said}, the backbone has name={name!r}; make them equal')
    return [f'{place}={said}']


def _converted(vit: nn.Module, name: str, tensors: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Return tensors under the names of `vit`, in its sizes."""
    convert = sys.modules[type(vit).__module__].checkpoint_filter_fn
    options = _options(name) if convert.__module__.endswith('vision_transformer') else {}
    if (other := name_network(tensors)) and not way_in(other):
        raise CheckpointError(f'{source}: this is {other}; give a file of {name}')
    try:
        with redirect_stdout(StringIO()):  # timm prints each bias that the model has not
            out = convert(dict(tensors), vit, **options)
    except Exception as error:  # of another network, or damaged
        raise CheckpointError(f'{source}: timm cannot read it as {name} ({type(error).__name__}: {error}); give a '
                              'file of this model') from error
    if lost := [key for key in tensors if key.endswith('.qkv.bias') and _is_lost(key, tensors[key], out)]:
        raise CheckpointError(f'{source}: {lost[0]} is not zero, and {name} has no such bias; give name='
                              f"'{name.split('.')[0]}_qkvb'")
    return out


def _options(name: str) -> dict:
    """Return what timm's functions that build these models give to the filter; a model does not keep it."""
    options = dict(adapt_layer_scale=True)  # DeiT-III's names; no other has them
    if 'flexi' in name or 'radio' in name:
        options |= dict(interpolation='bilinear', antialias=False)
    if any(part in name for part in getattr(vision_transformer, '_RADIO_ALIGN_CORNERS', ())):
        options['align_corners'] = True
    return options


def _is_lost(key: str, bias: Tensor, out: dict[str, Tensor]) -> bool:
    """Return whether timm left out a bias of queries and values that is not zero, as it does for DINOv3."""
    query, _, value = bias.chunk(3)
    kept = key in out or key.replace('qkv.bias', 'q_bias') in out
    return not kept and bool(query.any() or value.any())
