"""What a weight file is, without a model."""
import re
from dataclasses import dataclass
from pathlib import Path

from .errors import CheckpointError
from .formats import Weights, open_vit
from .hashes import sha256_of
from .hub import fetch, is_hub, local_file
from .shapes import infer_arch


@dataclass(frozen=True)
class WeightsInfo:
    """A ViT's file: the `format` its keys show, its `header` (ours, or empty), what it holds and what is guessed.

    `arch` are the `Arch` fields that header or shapes show; `assumed` says in words what they do not show, what was
    chosen or left out, and how the file was checked. `keys` and `parameters` count the ViT's tensors.
    """
    format: str
    header: dict
    sha256: str
    arch: dict
    assumed: list[str]
    keys: int
    parameters: int


def inspect_weights(path: str | Path) -> WeightsInfo:
    """Read a ViT's file in any format of docs/weights.md; `path` may be an hf:// name. Nothing is built.

    Raises:
        CheckpointError: as `open_vit`, or the file's name carries the start of a SHA-256 that is not the file's.
    """
    file = local_file(path)
    weights = open_vit(path)
    sha256 = sha256_of(file)
    check_name(file, sha256)
    arch, assumed = describe(weights, path)
    if is_hub(path):
        assumed = [*assumed, fetch(str(path))[1]]
    return WeightsInfo(weights.format, weights.header, sha256, arch, assumed, len(weights.tensors),
                       sum(tensor.numel() for tensor in weights.tensors.values()))


def check_name(path: Path, sha256: str) -> None:
    """Torch hub and OpenMMLab call files `name-<start of their SHA-256, 8 digits>.pth`; dates are not taken for one.

    Raises:
        CheckpointError: the start differs.
    """
    named = re.search(r'-(?!(?:19|20)\d{6}\.)([0-9a-f]{8})\.\w+$', path.name)
    if named and not sha256.startswith(named[1]):
        raise CheckpointError(f'{path}: named after a SHA-256 that begins with {named[1]}, but its own is {sha256}; '
                              'the file is damaged or renamed: download it again')


def describe(weights: Weights, source: str | Path) -> tuple[dict, list[str]]:
    """The `Arch` fields that header or shapes show, and in words what was assumed, chosen or left out.

    Raises:
        CheckpointError: a tensor that every ViT has is missing.
    """
    if weights.header.get('arch'):
        return dict(weights.header['arch']), [*weights.header.get('assumed', []), *weights.notes]
    try:
        arch, note = infer_arch(weights.tensors)
    except KeyError as error:
        raise CheckpointError(f'{source}: no whole ViT, {error} is missing; download or write it again') from error
    notes = [note]
    if weights.format == 'hf' and arch.pop('norm_eps', None):
        notes = [f'heads={arch["heads"]} is not in the file: taken from the public ViT of this width; norm_eps is in '
                 'its config.json alone']
    if weights.format == 'mmengine':  # a run of ours, whose config may have chosen otherwise
        del arch['global_pool']
        notes.append("global_pool is in the run's config alone")
    return arch, [*notes, *weights.notes]
