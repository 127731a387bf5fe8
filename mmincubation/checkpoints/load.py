"""Strict loading: every weight is matched, or named as dropped or fresh."""
import math
from pathlib import Path

from torch import Tensor, nn

from mmincubation.models import Arch, VisionTransformer

from .files import CheckpointError, sha256_of
from .keymaps import read_vit

SHOWN = 8


def load_strict(module: nn.Module, tensors: dict[str, Tensor], *, source: str, drop=(), fresh=()) -> dict:
    """Load `tensors` into `module`; what does not fit stops the run before anything is changed.

    It decides from the names and shapes alone, so every rank of a distributed run decides alike.

    Args:
        source: the file that the tensors come from, for messages and the report.
        drop: names or dotted prefixes (`head`) of tensors in the file that are left out.
        fresh: names or dotted prefixes of the module's own weights that keep their values and are not in the file.

    Returns:
        `path`, `sha256` (None if `source` is no file) and the one-line `coverage`.

    Raises:
        CheckpointError: weights are missing, unexpected or of another shape.
    """
    own = module.state_dict()
    dropped = [name for name in tensors if _named(name, drop)]
    kept = [name for name in own if _named(name, fresh)]
    new = {name: value for name, value in tensors.items() if name not in set(dropped)}
    _check({name: value for name, value in own.items() if name not in set(kept)}, new, source)
    module.load_state_dict({**own, **new})
    return dict(
        path=str(source),
        sha256=sha256_of(source) if Path(source).is_file() else None,
        coverage=_coverage(own, new, dropped, kept))


def load_vit(vit: VisionTransformer, path: str | Path) -> dict:
    """Load a ViT's file strictly into `vit`; returns `load_strict`'s report.

    Raises:
        CheckpointError: the file cannot be read, or does not match in names, shapes or header.
    """
    tensors, header = read_vit(path)
    check_header(header, vit.arch, str(path))
    return load_strict(vit, tensors, source=str(path))


def check_fit(module: nn.Module, tensors: dict[str, Tensor], source: str) -> None:
    """Raise CheckpointError unless `tensors` are exactly the module's, by name and shape; nothing is loaded."""
    _check(module.state_dict(), tensors, source)


def check_header(header: dict, arch: Arch, source: str, fields=('heads', 'norm_eps', 'global_pool')) -> None:
    """Compare what tensor shapes do not show, as far as the file's header names it; a backbone has no pooling.

    Raises:
        CheckpointError: it differs; the wrong value would load without a sound and compute another function.
    """
    stored = header.get('arch') or {}
    for field in fields:
        if field in stored and stored[field] != getattr(arch, field):
            raise CheckpointError(f'{source}: made with {field}={stored[field]}, the model has '
                                  f'{field}={getattr(arch, field)}; set it in arch')


def _named(name: str, prefixes) -> bool:
    return any(name == prefix or name.startswith(prefix.rstrip('.') + '.') for prefix in prefixes)


def _check(own: dict, new: dict, source: str) -> None:
    missing = [f'{name} {_shape(own[name])}' for name in own if name not in new]
    unexpected = [f'{name} {_shape(new[name])}' for name in new if name not in own]
    shapes = [f'{name} {_shape(new[name])} in the file, {_shape(own[name])} in the model'
              for name in own if name in new and own[name].shape != new[name].shape]
    found = dict(missing=missing, unexpected=unexpected, misshaped=shapes)
    if any(found.values()):
        lists = '; '.join(f'{len(names)} {what}: {_some(names)}' for what, names in found.items() if names)
        raise CheckpointError(f'{source} does not fit the model: {lists}.{_hints(missing, unexpected, shapes)}')


def _hints(missing: list[str], unexpected: list[str], shapes: list[str]) -> str:
    hints = (
        (missing, '.qkv.bias ', 'the file has no qkv bias, build the model with qkv_bias=False'),
        (unexpected, '.qkv.bias ', 'the file has a qkv bias, build the model with qkv_bias=True'),
        (shapes, 'pos_embed ', 'another number of patches, build the model with the img_size of the file'),
        (shapes, 'head.', "another number of classes, set num_classes or name 'head' in drop and fresh"),
    )
    return ''.join(f' Hint: {hint}.' for names, part, hint in hints if any(part in name for name in names))


def _coverage(own: dict, new: dict, dropped: list[str], kept: list[str]) -> str:
    total, loaded = (sum(own[name].numel() for name in names) for names in (own, new))
    percent = math.floor(1000 * loaded / max(total, 1)) / 10  # rounded down: 100 % means all
    size = f'{total / 1e6:.1f} M' if total >= 1e6 else f'{total / 1e3:.1f} k'
    named = (('dropped by name', dropped), ('fresh', kept))
    extra = ''.join(f'; {what}: {_some(names)}' for what, names in named if names)
    return f'{len(new)}/{len(own)} keys, {percent:.1f} % of {size} parameters{extra}'


def _shape(tensor: Tensor) -> str:
    return 'x'.join(str(size) for size in tensor.shape) or 'scalar'


def _some(names: list[str]) -> str:
    more = f' and {len(names) - SHOWN} more' if len(names) > SHOWN else ''
    return ', '.join(names[:SHOWN]) + more
