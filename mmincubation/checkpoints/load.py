"""Load weights strictly: every weight must match, or be named as dropped or fresh."""
import math
from pathlib import Path

from torch import Tensor, nn

from mmincubation.errors import CheckpointError
from mmincubation.hashes import sha256_of
from mmincubation.vit import Arch, VisionTransformer

from .formats import Weights, open_vit
from .hub import fetch, is_hub, local_file
from .shapes import public_arch

SHOWN = 8


def load_strict(module: nn.Module, tensors: dict[str, Tensor], *, source: str, drop=(), fresh=()) -> dict:
    """Load `tensors` into `module`. If they do not fit, raise before anything is changed.

    Only names and shapes decide, so all ranks of a distributed run decide alike.

    Args:
        source: the file that the tensors come from, for messages and the report.
        drop: names or dotted prefixes (`head`) of tensors in the file that are not loaded.
        fresh: names or dotted prefixes of the module's weights that keep their values; the file must not have them.

    Returns:
        `path`, `sha256` (None if `source` is no file) and the one-line `coverage`.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    dropped = [name for name in tensors if is_named(name, drop)]
    kept = [name for name in own if is_named(name, fresh)]
    new = {name: value for name, value in tensors.items() if name not in set(dropped)}
    _require_match({name: value for name, value in own.items() if name not in set(kept)}, new, source)
    module.load_state_dict({**own, **new})  # `own` fills in what stays fresh
    file = local_file(source)
    return dict(
        path=str(source),
        sha256=sha256_of(file) if file.is_file() else None,
        coverage='; '.join([_coverage(own, new, dropped, kept), *([fetch(source)[1]] if is_hub(source) else [])]))


def load_vit(vit: VisionTransformer, path: str | Path) -> dict:
    """Load a ViT's file strictly into `vit`, and return the report of `load_strict`.

    Raises:
        CheckpointError: the file cannot be read, or differs from `vit` in names, shapes, header or known fields.
    """
    weights = open_vit(path)
    require_known_fields(weights, vit.arch, str(path))
    report = load_strict(vit, weights.tensors, source=str(path))
    return report | {'coverage': '; '.join([report['coverage'], *weights.notes])}


def require_fit(module: nn.Module, tensors: dict[str, Tensor], source: str, fresh=()) -> str:
    """Compare a whole model's tensors with the module's; load nothing, return the one-line coverage.

    `fresh` are names or dotted prefixes of weights that keep their values, or that only the file has.

    Raises:
        CheckpointError: other weights are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    left, kept = ([name for name in names if is_named(name, fresh)] for names in (tensors, own))
    new = {name: value for name, value in tensors.items() if name not in set(left)}
    _require_match({name: value for name, value in own.items() if name not in set(kept)}, new, source, hint=False)
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
    """Refuse a file that contradicts `arch` in `fields`, by its header or, without one, by what is known of it.

    A file without a header must be a public ViT if it has the width and the qkv bias of one: heads and epsilon are
    compared with those. Files of our runs may have any shape, and transformers' epsilon differs between conversions.

    Raises:
        CheckpointError: a field differs.
    """
    require_header(weights.header, arch, source, fields)
    known = public_arch(weights.tensors)
    if weights.header.get('arch') or known is None or weights.format == 'mmengine':
        return
    name, public = known
    for field in ('num_heads', 'norm_eps') if weights.format != 'hf' else ('num_heads', ):
        value, ours = getattr(public, field), getattr(arch, field)
        # Another width or qkv bias is reported as a shape or a missing key, which is clearer.
        if (arch.embed_dim, arch.qkv_bias) == (public.embed_dim, public.qkv_bias) and value != ours:
            raise CheckpointError(
                f'{source}: the file does not say {field}, by width and qkv bias it is {name} with {field}={value}, '
                f'the model has {field}={ours}; set {field}={value} in arch, or if the file is another ViT give it a '
                f'header: tools/convert.py SRC DST --arch {field}={ours}')


def is_named(name: str, prefixes) -> bool:
    """Return whether a weight's name is one of the names or below one of the dotted prefixes."""
    return any(name == prefix or name.startswith(prefix.rstrip('.') + '.') for prefix in prefixes)


def _require_match(own: dict, new: dict, source: str, hint: bool = True) -> None:
    missing = [f'{name} {_shape_text(own[name])}' for name in own if name not in new]
    unexpected = [f'{name} {_shape_text(new[name])}' for name in new if name not in own]
    shapes = [f'{name} {_shape_text(new[name])} in the file, {_shape_text(own[name])} in the model'
              for name in own if name in new and own[name].shape != new[name].shape]
    found = dict(missing=missing, unexpected=unexpected, misshaped=shapes)
    if any(found.values()):
        lists = '; '.join(f'{len(names)} {what}: {_first_names(names)}' for what, names in found.items() if names)
        raise CheckpointError(f'{source} does not fit the model: {lists}.'
                              f'{_hints(missing, unexpected, shapes) if hint else ""}')


def _hints(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    hints = (
        (missing, '.qkv.bias ', 'the file has no qkv bias, build the model with qkv_bias=False'),
        (unexpected, '.qkv.bias ', 'the file has a qkv bias, build the model with qkv_bias=True (and the norm_eps '
         'that belongs to it)'),
        (unexpected, '.ls1.gamma ', 'the file has LayerScale, set init_values=1e-5 in arch'),
        (missing, '.ls1.gamma ', 'the file has no LayerScale, leave init_values out of arch'),
        (unexpected, 'fc_norm.', "its head reads the mean of the patches through fc_norm, which this ViT has not; "
         "name 'head' and 'norm' as fresh"),
        (shapes, 'pos_embed ', 'another number of patches, build the model with the img_size of the file'),
        (shapes, 'head.', "another number of classes, set num_classes or name 'head' as fresh"),
        (missing, 'head.', "the file has no head, name 'head' as fresh"),
    )
    return ''.join(f' Hint: {hint}.' for names, text, hint in hints if any(text in name for name in names))


def _coverage(own: dict, new: dict, dropped: list[str], kept: list[str]) -> str:
    total, loaded = (sum(own[name].numel() for name in names) for names in (own, new))
    percent = math.floor(1000 * loaded / max(total, 1)) / 10  # rounded down, so that 100 % means all
    size = f'{total / 1e6:.1f} M' if total >= 1e6 else f'{total / 1e3:.1f} k'
    named = (('dropped by name', dropped), ('fresh', kept))
    extra = ''.join(f'; {what}: {_first_names(names)}' for what, names in named if names)
    return f'{len(new)}/{len(own)} keys, {percent:.1f} % of {size} parameters{extra}'


def _shape_text(tensor: Tensor) -> str:
    return 'x'.join(str(size) for size in tensor.shape) or 'scalar'


def _first_names(names: list[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more
