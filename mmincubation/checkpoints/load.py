"""Load weights strictly: every weight must match, or be named as dropped or fresh."""
import math
from pathlib import Path

from torch import Tensor, nn

from mmincubation.errors import CheckpointError
from mmincubation.vit import Arch, VisionTransformer

from .files import require_finite
from .formats import Weights, open_vit
from .hub import fetch, is_address
from .shapes import PUBLIC, differing_fields, public_arch
from .shards import weights_sha256

SHOWN = 8
POOLED_HEAD = 'the head of the file reads the mean of the patches through fc_norm, which this ViT has not'


def load_strict(module: nn.Module, tensors: dict[str, Tensor], *, source: str, drop=(), fresh=(), setting: str = ''
                ) -> dict:
    """Load `tensors` into `module`. If they do not fit, raise before anything is changed.

    Only names and shapes decide, so all ranks of a distributed run decide alike.

    Args:
        source: the file that the tensors come from, for messages and the report.
        drop: names or dotted prefixes (`head`) of tensors in the file that are not loaded.
        fresh: names or dotted prefixes of the module's weights that keep their values; the file must not have them.
        setting: where the user can name `fresh`, for messages; empty if nowhere.

    Returns:
        `path`, `sha256` (None if `source` is no file) and the one-line `coverage`.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    dropped = [name for name in tensors if is_named(name, drop)]
    kept = [name for name in own if is_named(name, fresh)]
    new = {name: value for name, value in tensors.items() if name not in set(dropped)}
    compared = {name: value for name, value in own.items() if name not in set(kept)}
    if found := _mismatch(compared, new):
        raise CheckpointError(f'{source} does not fit the model: {_explained(module, compared, new, setting)}{found}')
    module.load_state_dict({**own, **new})  # `own` fills in what stays fresh
    return dict(
        path=str(source),
        sha256=weights_sha256(source),
        coverage='; '.join([_coverage(own, new, dropped, kept), *([fetch(source)[1]] if is_address(source) else [])]))


def load_vit(vit: VisionTransformer, path: str | Path) -> dict:
    """Load a ViT's file strictly into `vit`, and return the report of `load_strict`.

    Raises:
        CheckpointError: the file cannot be read, or differs from `vit` in names, shapes, header or known fields.
    """
    weights = open_vit(path)
    require_known_fields(weights, vit.arch, str(path))
    report = load_strict(vit, weights.tensors, source=str(path))
    return report | {'coverage': '; '.join([report['coverage'], *weights.notes, *assumed(weights, vit.arch)])}


def require_fit(module: nn.Module, tensors: dict[str, Tensor], source: str, fresh=()) -> str:
    """Compare a whole model's tensors with the module's; load nothing, return the one-line coverage.

    `fresh` are names or dotted prefixes of weights that keep their values, or that only the file has.

    Raises:
        CheckpointError: other weights are missing, unexpected or of another shape, or values are not finite.
    """
    own = module.state_dict()
    require_finite(tensors, source)
    left, kept = ([name for name in names if is_named(name, fresh)] for names in (tensors, own))
    new = {name: value for name, value in tensors.items() if name not in set(left)}
    if found := _mismatch({name: value for name, value in own.items() if name not in set(kept)}, new):
        raise CheckpointError(f'{source} does not fit the model: {found}')
    return _coverage(own, new, [name for name in left if name not in own], kept)


def require_header(header: dict, arch: Arch, source: str, fields=('num_heads', 'norm_eps', 'global_pool')) -> None:
    """Refuse a file whose header contradicts `arch` in `fields` that tensor shapes do not show.

    Such a file would load without an error and compute another function. A header without a field agrees.

    Raises:
        CheckpointError: a field differs.
    """
    stored = header.get('arch') or {}
    for field in fields:
        if field in stored and stored[field] != getattr(arch, field):
            raise CheckpointError(f'{source}: made with {field}={stored[field]}, the model has '
                                  f'{field}={getattr(arch, field)}; set it in arch')


def require_known_fields(weights: Weights, arch: Arch, source: str, fields=('num_heads', 'norm_eps', 'global_pool')
                         ) -> None:
    """Refuse a file that contradicts `arch` in `fields`: by its header, else by `config.json`, else by what is known.

    What neither says is compared with the public ViT of this width and qkv bias, if there is one: a value that another
    public one of this width has may come with a name, and is refused. One that none has was given, and is believed, but
    for files of the public code. Files of our runs may have any shape, and transformers' epsilon differs between
    conversions.

    Raises:
        CheckpointError: a field differs.
    """
    require_header(dict(arch=weights.header.get('arch') or weights.trained), arch, source, fields)
    stated = weights.stated.fields if weights.stated else {}
    for field in fields:
        if field == 'global_pool' and 'cls_token' not in weights.tensors:
            continue  # the missing class token is reported, which no pooling can mend
        if field in stated and stated[field] != getattr(arch, field):
            raise CheckpointError(f'{source}: {weights.stated.source} says {field}={stated[field]}, the model has '
                                  f'{field}={getattr(arch, field)}; set {field}={stated[field]!r} in arch')
    known = public_arch(weights.tensors)
    if weights.header.get('arch') or known is None or weights.format == 'mmengine':
        return
    name, public = known
    for field in {'num_heads', *(() if weights.format.startswith('hf') else ('norm_eps', ))} - stated.keys():
        value, ours = getattr(public, field), getattr(arch, field)
        given = not weights.known and ours not in {getattr(other, field) for other in PUBLIC.values()
                                                   if other.embed_dim == public.embed_dim}
        # Another width or qkv bias is reported as a shape or a missing key, which is clearer.
        if not given and (arch.embed_dim, arch.qkv_bias) == (public.embed_dim, public.qkv_bias) and value != ours:
            raise CheckpointError(
                f'{source}: the file does not say {field}, by width and qkv bias it is {name} with {field}={value}, '
                f'the model has {field}={ours}; set {field}={value} in arch, or if the file is another ViT give it a '
                f'header: tools/convert.py SRC DST --arch {field}={ours}')


def assumed(weights: Weights, arch: Arch, fields=('num_heads', 'norm_eps', 'global_pool')) -> list[str]:
    """Return one note on what neither the file nor `config.json` says, and what is assumed; none if all is known.

    `fields` are those of `require_known_fields`. Pooling is nothing to assume without the file's head.
    """
    if weights.known:
        notes = weights.header.get('assumed') or []  # of a converted file
        return [f'assumed when it was converted: {"; ".join(map(str, notes))}'] if notes else []
    stated = weights.stated.fields if weights.stated else {}
    values = dict(activation='GELU', num_heads=arch.num_heads, norm_eps=f'{arch.norm_eps:g}')
    if 'global_pool' in fields and 'head.weight' in weights.tensors:
        values['global_pool'] = arch.global_pool
    name, public = public_arch(weights.tensors) or ('', arch)
    values |= {key: f'{values[key]} (as given; {name} has {usual:g})' for key in ('num_heads', 'norm_eps')
               if (usual := getattr(public, key)) != getattr(arch, key)}
    unknown = {key: value for key, value in values.items() if key not in stated}
    listed = ', '.join(f'{key}={value}' for key, value in unknown.items())
    return [f'assumed, the file does not say it: {listed}'] if unknown else []


def is_named(name: str, prefixes) -> bool:
    """Return whether a weight's name is one of the names or below one of the dotted prefixes."""
    return any(name == prefix or name.startswith(prefix.rstrip('.') + '.') for prefix in prefixes)


def _mismatch(own: dict, new: dict) -> str:
    """Return which names and shapes differ, empty if none do."""
    found = dict(
        missing=[f'{name} {_shape_text(own[name])}' for name in own if name not in new],
        unexpected=[f'{name} {_shape_text(new[name])}' for name in new if name not in own],
        misshaped=[f'{name} {_shape_text(new[name])} in the file, {_shape_text(own[name])} in the model'
                   for name in own if name in new and own[name].shape != new[name].shape])
    return '; '.join(f'{len(names)} {what}: {first_names(names)}' for what, names in found.items() if names)


def _explained(module: nn.Module, own: dict, new: dict[str, Tensor], setting: str) -> str:
    """Return what the file's ViT has that the module's has not, and what to do, as far as its tensors establish it."""
    arch, reasons = getattr(module, 'arch', None), []
    if not isinstance(arch, Arch):
        return ''
    if differing := differing_fields(new, arch):
        listed = ', '.join(f'{key}={theirs} (the model has {ours})' for key, (theirs, ours) in differing.items())
        listed = listed.replace('init_values=None', 'no LayerScale, init_values=None')
        bias = ', with the norm_eps that belongs to it' if 'qkv_bias' in differing else ''
        reasons.append(f"the file's ViT has {listed}; set arch to the file's{bias}, or give a file of this arch")
    if 'cls_token' in own and 'cls_token' not in new:
        reasons.append('the file has no class token; a ViTBackbone with cls_token=False takes it')
    return ''.join(f'{reason}. ' for reason in reasons + _about_head(own, new, setting))


def _about_head(own: dict, new: dict, setting: str) -> list[str]:
    """Return what is known of the norm and the head that the file's ViT has or lacks, and what to do."""
    if 'fc_norm.weight' in new:
        return [POOLED_HEAD + (f"; fresh=('head', 'norm') in {setting} begins both anew" if setting else '')]
    if missing := [part for part in ('norm', 'head') if f'{part}.weight' in own and f'{part}.weight' not in new]:
        begin = f'fresh={tuple(missing)} in {setting} begins {"both" if missing[1:] else "it"} anew'
        begin = begin if setting else 'give a file of a whole classifier'
        return [f'the file has no {" and no ".join(missing)}; {begin}']
    if 'head.weight' not in own or 'head.weight' not in new:
        return []
    begin = f"fresh=('head',) in {setting} begins it anew"
    theirs, ours = new['head.weight'].shape, own['head.weight'].shape
    if theirs[-1] == 2 * ours[-1]:
        return [f'the head of the file reads {theirs[-1]} values, more than one token; '
                f'{begin if setting else "give a file with another head"}']
    return [f'for other classes than those of the file {begin}'] if setting and theirs[0] != ours[0] else []


def _coverage(own: dict, new: dict, dropped: list[str], kept: list[str]) -> str:
    total, loaded = (sum(own[name].numel() for name in names) for names in (own, new))
    percent = math.floor(1000 * loaded / max(total, 1)) / 10  # rounded down, so that 100 % means all
    size = f'{total / 1e6:.1f} M' if total >= 1e6 else f'{total / 1e3:.1f} k'
    named = (('dropped by name', dropped), ('fresh', kept))
    extra = ''.join(f'; {what}: {first_names(names)}' for what, names in named if names)
    return f'{len(new)}/{len(own)} keys, {percent:.1f} % of {size} parameters{extra}'


def _shape_text(tensor: Tensor) -> str:
    return 'x'.join(str(size) for size in tensor.shape) or 'scalar'


def first_names(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more
