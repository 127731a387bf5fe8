"""Convert weight files: read a ViT in any format, and write it under the names of another program."""
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from mmincubation.errors import CheckpointError
from mmincubation.hashes import sha256_of
from mmincubation.vit import Division

from .files import write_tensors, write_torch
from .formats import SHOWN, Weights, open_vit
from .hub import fetch, is_address
from .inspection import describe, require_hash_in_name
from .keymaps import from_timm, global_names
from .load import POOLED_HEAD
from .pixels import Pixels, own_pixels, stated_pixels
from .shapes import misfits
from .shards import weight_file, weights_sha256

SUFFIXES = dict(timm=('.safetensors', ), hf=('.safetensors', ), official=('.pth', ),
                mmpretrain=('.pth', '.safetensors'))  # mmengine, which loads mmpretrain's files, reads .pth alone
PAPER_MODULES = 4
OWNERS = dict(official='the public code', mmpretrain='mmpretrain', hf='transformers')  # of heads on the class token


@dataclass(frozen=True)
class Converted:
    """The report of `convert`: `source` is the format of the source, `assumed` lists what the file does not say."""
    source: str
    arch: dict
    division: list[int] | None
    assumed: list[str]
    keys: int
    parameters: int
    sha256: str


def convert(src: str, dst: str | Path, to: str = 'timm', modules: int | None = None, arch: dict | None = None,
            prefix: str | None = None) -> Converted:
    """Write the ViT in `src`, in any format of docs/guides/weights.md or an hf:// name, to the new file `dst`.

    Args:
        to: the program whose names to write: `timm`, `mmpretrain`, `official` (the public Deep Incubation code) or
            `hf` (transformers).
        modules: the number K of equal modules, for `official` if the file shows no division. None means the paper's 4.
        arch: `Arch` fields that the file does not show (`num_heads`, `norm_eps`), for the new header.
        prefix: chooses among several ViTs in `src`, see `open_vit`.

    Raises:
        CheckpointError: `dst` exists or has a wrong suffix, `src` is not a whole ViT, or `to` has no name for a tensor.
    """
    _require_new_dst(src, Path(dst), to)
    weights, sha256 = open_vit(src, prefix), weights_sha256(src)
    require_hash_in_name(weight_file(src), sha256)
    _settle_head(weights, src)
    shape, assumed = describe(weights, src, arch or {})
    _require_whole_vit(weights.tensors, shape, src)
    division = _division(weights, shape['depth'], to, modules, src)
    if division and not (weights.division or modules):
        assumed = [*assumed, f'{PAPER_MODULES} equal modules, as in the paper: the file has no division (--modules K)']
    pixels = own_pixels(src) if weights.known else stated_pixels(src)
    header = _header(weights, shape, division, assumed, dict(sha256=sha256, format=weights.format), pixels)
    if shape.get('global_pool') == 'avg' and 'head.weight' in weights.tensors:
        assumed = [*assumed, _pooled(to)]
    if is_address(src):
        assumed = [*assumed, fetch(src)[1]]
    _write(Path(dst), weights.tensors, header, to)
    parameters = sum(tensor.numel() for tensor in weights.tensors.values())
    return Converted(weights.format, shape, division, assumed, len(weights.tensors), parameters, sha256_of(dst))


def _pooled(to: str) -> str:
    """Say what to do with a head that reads the mean of the patches."""
    if to == 'timm':
        return "create timm's model with global_pool='avg', fc_norm=False, else its head reads the class token"
    return f"take the encoder alone: {OWNERS[to]}'s head reads the class token, this one the mean of the patches"


def _require_new_dst(src: str, dst: Path, to: str) -> None:
    if dst.suffix not in SUFFIXES[to]:
        raise CheckpointError(f'{dst}: with --to {to} the name must end in {" or ".join(SUFFIXES[to])}')
    if dst.exists():
        same = not is_address(src) and Path(src).exists() and dst.samefile(src)
        raise CheckpointError(f'{dst}: {"is the source itself" if same else "exists already"}; choose another name')


def _require_whole_vit(tensors: dict[str, Tensor], shape: dict, src: str) -> None:
    """Refuse tensors that are not exactly those of a ViT of this shape, with or without norm, head and class token."""
    try:
        found = misfits(tensors, shape)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f'{src}: its header or shapes make no ViT ({error})') from error
    if found:
        lists = '; '.join(f'{what}: {", ".join(sorted(names)[:SHOWN])}' for what, names in found.items())
        raise CheckpointError(f'{src}: no whole plain ViT ({lists}); it cannot be converted')


def _settle_head(weights: Weights, src: str) -> None:
    """Refuse a pooled head, and leave out one that reads more than one token (transformers' Dinov2)."""
    if 'fc_norm.weight' in weights.tensors:
        raise CheckpointError(f'{src}: {POOLED_HEAD}; it cannot be converted, but a ViTBackbone takes it as it is')
    head, token = (weights.tensors.get(name) for name in ('head.weight', 'cls_token'))
    if head is not None and token is not None and head.shape[-1] == 2 * token.shape[-1]:
        weights.tensors = {name: value for name, value in weights.tensors.items() if not name.startswith('head.')}
        weights.notes.append(f'left out: the head, which reads {head.shape[-1]} values, more than one token')


def _division(weights: Weights, depth: int, to: str, modules: int | None, src: str) -> list[int] | None:
    """Return the number of blocks of each module: the file's, or for `official` those of equal modules."""
    known = weights.division
    if known and modules not in (None, len(known)):
        raise CheckpointError(f'--modules {modules}: {src} has {len(known)} modules, of {known} blocks; leave it out')
    if not known and to != 'official':
        if modules:
            raise CheckpointError(f'--modules {modules}: only --to official divides; leave it out')
        return None
    try:
        return list(Division.of(depth, known or modules or PAPER_MODULES).depths)
    except ValueError as error:
        raise CheckpointError(f'{src}: {error}; set it by --modules K') from error


def _header(weights: Weights, shape: dict, division: list[int] | None, assumed: list[str], source: dict,
            pixels: Pixels | None) -> dict:
    header = {**weights.header, 'kind': 'vit', 'arch': shape, 'source': source}
    extra = {key: value for key, value in dict(division=division, assumed=assumed).items() if value}
    return {**header, **extra, **(dict(mean=pixels.mean, std=pixels.std) if pixels else {})}


def _write(dst: Path, tensors: dict[str, Tensor], header: dict, to: str) -> None:
    if to == 'official':
        _require_official(dst, tensors)
        write_torch(dst, _official(tensors, Division(tuple(header['division']))), header)
    elif dst.suffix == '.pth':
        write_torch(dst, dict(state_dict=from_timm(tensors, to)), header)
    else:
        write_tensors(dst, tensors if to == 'timm' else from_timm(tensors, to), header)


def _require_official(dst: Path, tensors: dict[str, Tensor]) -> None:
    if missing := [name for name in ('cls_token', 'norm.weight') if name not in tensors]:
        raise CheckpointError(f'{dst}: official has no ViT without {missing[0]}; use timm names')


def _official(tensors: dict[str, Tensor], division: Division) -> dict:
    """Return the public code's `model_stages`, with local block numbers, and `model`, which has every tensor twice."""
    stages = [global_names(division.entries_of(tensors, i), -division.span(i).start) for i in range(len(division))]
    # Its model registers the blocks twice: as `blocks` and again inside `stages`.
    twice = {f'stages.{i}.{key}': value for i, stage in enumerate(stages) for key, value in stage.items()}
    return dict(model={**tensors, **twice}, model_stages=stages)
