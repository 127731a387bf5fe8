"""Describe a weight file without building a model."""
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path

from mmincubation.errors import CheckpointError
from mmincubation.vit import Arch

from .formats import Weights, open_vit
from .hub import fetch, hash_in_name, is_address
from .shapes import infer_arch
from .shards import weight_file, weights_sha256

WITHOUT_TRACE = ('num_heads', 'norm_eps')  # fields without a trace in names or shapes


@dataclass(frozen=True)
class WeightsInfo:
    """The description of a ViT's file.

    `format` is the program that its keys show, `header` our header or empty. `arch` are the `Arch` fields that header
    or shapes show. `assumed` lists in words what was guessed, chosen or left out, and how the file was verified. `keys`
    and `parameters` count the ViT's tensors and their values.
    """
    format: str
    header: dict
    sha256: str
    arch: dict
    assumed: list[str]
    keys: int
    parameters: int


def inspect_weights(path: str | Path, prefix: str | None = None) -> WeightsInfo:
    """Describe a ViT's file in any format of docs/guides/weights.md; for `path` and `prefix` see `open_vit`.

    Raises:
        CheckpointError: as in `open_vit` and in `require_hash_in_name`.
    """
    weights = open_vit(path, prefix)
    sha256 = weights_sha256(path)
    require_hash_in_name(weight_file(path), sha256)
    arch, assumed = describe(weights, path)
    if is_address(path):
        assumed = [*assumed, fetch(str(path))[1]]
    return WeightsInfo(weights.format, weights.header, sha256, arch, assumed, len(weights.tensors),
                       sum(tensor.numel() for tensor in weights.tensors.values()))


def require_hash_in_name(path: Path, sha256: str) -> None:
    """Refuse a file named after another hash than its own.

    Torch hub and OpenMMLab name files `name-<first 8 digits of the SHA-256>.pth`. A date such as 20230101 is no hash.

    Raises:
        CheckpointError: the digits differ.
    """
    named = hash_in_name(path.name)
    if named and not sha256.startswith(named):
        raise CheckpointError(f'{path}: named after a SHA-256 that begins with {named}, but its own is {sha256}; '
                              'the file is damaged or renamed: download it again')


def describe(weights: Weights, source: str | Path, stated: dict | None = None) -> tuple[dict, list[str]]:
    """Return the `Arch` fields that header or shapes show, and in words what was assumed, chosen or left out.

    `stated` are fields from the user. A field that the file shows must agree with it.

    Raises:
        CheckpointError: a tensor that every ViT has is missing, or a stated field is unknown or differs from the file.
    """
    stated = stated or {}
    if weights.header.get('arch'):
        shown, guessed, notes = dict(weights.header['arch']), {}, list(weights.header.get('assumed', []))
    else:
        shown, guessed, notes = _guess(weights, source)
        notes = [] if set(WITHOUT_TRACE) <= set(stated) else notes  # nothing is guessed if both are stated
        if not weights.known and 'activation' not in (weights.stated.fields if weights.stated else {}):
            notes.append('activation=GELU, which no file says')
        if 'global_pool' in guessed.keys() - stated.keys() and 'head.weight' in weights.tensors:
            notes.append(f'global_pool={guessed["global_pool"]}, which the file does not say')
    _require_agreement(stated, shown, source)
    if stated:
        notes.append(' '.join(f'{key}={value}' for key, value in stated.items()) + ', as given by --arch')
    if weights.taps:
        notes.append('left out: tap_norms, which only a ViTBackbone with the same taps takes')
    return {**shown, **guessed, **stated}, [*notes, *weights.notes]


def _guess(weights: Weights, source: str | Path) -> tuple[dict, dict, list[str]]:
    """Return the fields that shapes and `config.json` show, those that are guessed, and notes on the guesses."""
    try:
        arch, note = infer_arch(weights.tensors)
    except (KeyError, IndexError, ZeroDivisionError) as error:
        raise CheckpointError(f'{source}: no whole ViT, {error} is missing; give the file of a whole one') from error
    if weights.format == 'mmengine':  # one of our runs: its config may have another pooling
        arch.pop('global_pool', None)
        note += "; global_pool is in the run's config alone"
    stated = dict(weights.stated.fields) if weights.stated else {}
    stated.pop('activation', None)  # no field of Arch
    pooling = [] if weights.known else ['global_pool']
    guessed = {key: arch.pop(key) for key in (*WITHOUT_TRACE, *pooling) if key in arch}
    guessed = {key: value for key, value in guessed.items() if key not in stated}
    # transformers' epsilon differs between conversions, so the width does not tell it.
    if weights.format.startswith('hf') and guessed.pop('norm_eps', None):
        note = 'norm_eps is in its config.json alone'
        if 'num_heads' in guessed:
            note = f'num_heads={guessed["num_heads"]} as in the public ViT of this width; {note}'
    return arch | stated, guessed, [] if set(WITHOUT_TRACE) <= stated.keys() else [note]


def _require_agreement(stated: dict, shown: dict, source: str | Path) -> None:
    valid = [field.name for field in fields(Arch)]
    for key, value in stated.items():
        if key not in valid:
            near = get_close_matches(key, valid, 1) or valid
            raise CheckpointError(f'--arch {key}: no field of an architecture; nearest: {", ".join(near)}')
        if key in shown and shown[key] != value:
            raise CheckpointError(f'--arch {key}={value}: {source} has {key}={shown[key]}; leave it out')
