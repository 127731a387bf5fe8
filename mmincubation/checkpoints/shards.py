"""Folders and indices: where the weights lie that a program wrote as several files."""
import hashlib
import json
from pathlib import Path

from mmincubation.errors import CheckpointError
from mmincubation.hashes import sha256_of

from .hub import local_file, neighbour
from .kinds import kind_of

# As transformers and timm look for them. An index says which tensor is in which shard.
USUAL = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin', 'pytorch_model.bin.index.json')
SUFFIXES = ('.safetensors', '.pth', '.pt', '.bin', '.ckpt', '.tar')
SHOWN = 8


def weight_file(source: str | Path) -> Path:
    """Return the local file that `source` names: itself, its download, or the one weight file in a folder.

    Raises:
        CheckpointError: the file cannot be downloaded, or the folder has no weights or several.
    """
    path = local_file(source)
    if not path.is_dir():
        return path
    if usual := next((path / name for name in USUAL if (path / name).is_file()), None):
        return usual
    if (path / '.metadata').is_file():
        raise CheckpointError(f"{path} is a distributed checkpoint of torch; make one file of it: `python -m torch."
                              f'distributed.checkpoint.format_utils dcp_to_torch {path} NEW.pth`')
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        names = ', '.join(file.name for file in files[:SHOWN]) or f'none of {", ".join(USUAL)}'
        raise CheckpointError(f'{path} is a folder with {len(files)} weight files ({names}); give the path of one file')
    return files[0]


def shard_files(source: str | Path) -> dict[Path, list[str]]:
    """Return the files of an index (`*.index.json`) with the names of the tensors in each; shards are downloaded too.

    Raises:
        CheckpointError: the index is none, names files in another folder, or a shard is missing.
    """
    index = weight_file(source)
    places = _weight_map(index)
    shards = {name: local_file(neighbour(source, index, name)) for name in sorted(set(places.values()))}
    if missing := [name for name, path in shards.items() if not path.is_file()]:
        raise CheckpointError(f'{index}: {len(missing)} of its {len(shards)} shards are missing ({missing[0]}); put all '
                              'of them beside it')
    return {path: [tensor for tensor, place in places.items() if place == name] for name, path in shards.items()}


def _weight_map(index: Path) -> dict[str, str]:
    try:
        places = json.loads(index.read_bytes())['weight_map']
        names = set(places.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CheckpointError(f'{index} is no index of shards: it has no `weight_map`; give the weights or their folder'
                              ) from error
    if odd := [name for name in names if not isinstance(name, str) or name in ('', '..') or Path(name).name != name]:
        raise CheckpointError(f'{index}: its shard {str(odd[0])[:120]!r} is no file name; shards lie beside their index')
    return places


def weights_sha256(source: str | Path) -> str | None:
    """Return the SHA-256 of a weight file, None if there is none; of shards, that of their `sha256sum` in order."""
    path = weight_file(source)
    if not path.is_file() or kind_of(path) != 'index':
        return sha256_of(path) if path.is_file() else None
    lines = ''.join(f'{sha256_of(shard)}  {shard.name}\n' for shard in shard_files(source))
    return hashlib.sha256(lines.encode()).hexdigest()
