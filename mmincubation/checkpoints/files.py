"""Read and write weight files. Reading never executes anything in a file."""
import errno
import json
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmincubation.atomic import replacing
from mmincubation.errors import CheckpointError
from mmincubation.vit.spec import RENAMED

from .kinds import kind_of
from .shards import shard_files, weight_file

HEADER_KEY = 'mmincubation'
MODEL = 'model'  # the kind of a file with a whole published model, which is read as a run's checkpoint is


def read_tensors(path: str | Path, mapped: bool = True) -> tuple[dict, dict]:
    """Return content and header of a weight file, on the CPU; `path` may be an address or a folder, see `weight_file`.

    The file's first bytes tell its kind, not its name. The content of a safetensors file, and of an index of shards, is
    a flat dict of tensors; that of a whole published model has `state_dict` and `meta` as a run's checkpoint. That of
    a file of torch.save is the dict that was saved, without our header. The header is the one that `write_tensors` or
    `write_torch` wrote; files of other programs have an empty one. A `mapped` file is read when its tensors are used,
    and must not change before that.

    Raises:
        CheckpointError: the file is missing, damaged, not a weight file, or a pickle of more than plain data.
    """
    file = weight_file(path)
    kind = kind_of(file)
    if kind == 'index':
        return _read_shards(path, file, mapped), {}
    return _read_file(file, kind, mapped)


def _read_file(path: Path, kind: str, mapped: bool) -> tuple[dict, dict]:
    if kind == 'safetensors':
        return _read_safetensors(path)
    content = _read_torch(path, kind, mapped)
    header = content.pop(HEADER_KEY, {})
    return content, _with_current_names(header) if isinstance(header, dict) else {}


def _read_shards(source: str | Path, index: Path, mapped: bool) -> dict:
    """Read all shards of an index; each must have the tensors that the index says."""
    tensors = {}
    for shard, names in shard_files(source).items():
        content, _ = _read_file(shard, kind_of(shard, shard=True), mapped)
        if missing := [name for name in names if not isinstance(content.get(name), Tensor)]:
            raise CheckpointError(f'{shard}: has no {missing[0]}, which {index.name} says it has; take both from the '
                                  'same version of the model')
        tensors.update({name: content[name] for name in names})
    return tensors


def _with_current_names(header: dict) -> dict:
    """Return a header with the current names of the fields of `arch`; earlier versions wrote others."""
    arch = header.get('arch')
    if not isinstance(arch, dict):
        return header
    return header | {'arch': {RENAMED.get(key, key): value for key, value in arch.items()}}


def _wide(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.element_size() == 1 else tensor  # torch asks nothing of 8-bit floats


def require_finite(tensors: dict[str, Tensor], source: str) -> None:
    """Refuse weights with NaN or infinity: they load, and every output is NaN.

    Raises:
        CheckpointError: a tensor has such values; the message names the first.
    """
    wrong = (name for name, value in tensors.items()
             if value.is_floating_point() and not value.is_meta and not _wide(value).isfinite().all())
    if name := next(wrong, None):
        raise CheckpointError(f'{source}: {name} has values that are not finite; its training diverged or the file is '
                              'damaged: give an earlier checkpoint')


def write_tensors(path: str | Path, tensors: dict[str, Tensor], header: dict) -> None:
    """Write a `.safetensors` file with a JSON header, atomically. Equal tensors and header give equal bytes.

    Raises:
        CheckpointError: the file cannot be written, for example because the disk is full.
    """
    with writing(path, sum(t.nbytes for t in tensors.values())) as tmp:
        save_file(_storable(tensors), tmp, {'format': 'pt', HEADER_KEY: json.dumps(header, sort_keys=True)})
        with open(tmp, 'r+b') as file:
            _sort_header(file)


def write_torch(path: str | Path, content: dict, header: dict) -> None:
    """Write `content` and our header by `torch.save`, atomically, for programs that read no other format.

    Raises:
        CheckpointError: the file cannot be written.
    """
    with writing(path, nbytes(content)) as tmp, open(tmp, 'wb') as file:  # given a name, torch.save would store it
        torch.save({**content, HEADER_KEY: header}, file)


@contextmanager
def writing(path: str | Path, size: int) -> Iterator[Path]:
    """Yield a temporary file for `size` bytes, which replaces `path` at the end (see `replacing`).

    Raises:
        CheckpointError: the disk has no room, before or while writing, or another error of the disk; `path` does not
            change.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path.parent).free
        if free < size:
            raise OSError(errno.ENOSPC, f'its disk has {free:,} bytes free')
        with replacing(path) as tmp:
            yield tmp
    except (OSError, SafetensorError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise CheckpointError(f'{path}: cannot be written ({reason}); it needs {size:,} bytes. An older file of this '
                              'name is as it was: check space and permissions, and start again') from error


def nbytes(content: Any) -> int:
    """Return the bytes that tensors, arrays and texts in `content` take in a file; shared memory counts once."""
    sizes, seen, left = {}, set(), [content]
    while left:
        item = left.pop()
        if isinstance(item, Tensor):
            storage = item.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        elif id(item) not in seen:
            seen.add(id(item))
            if isinstance(item, np.ndarray | str | bytes):
                sizes[id(item)] = getattr(item, 'nbytes', None) or len(item)
            elif isinstance(item, dict):
                left += [*item.keys(), *item.values()]
            else:
                left += item if isinstance(item, list | tuple) else vars(item).values() if _has_attributes(item) else ()
    return sum(sizes.values())


def _has_attributes(item: Any) -> bool:
    return hasattr(item, '__dict__') and not isinstance(item, type)


def _storable(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous CPU tensors that share no memory: safetensors refuses others."""
    out, seen = {}, set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in seen:
            tensor = tensor.clone()
        seen.add(tensor.untyped_storage().data_ptr())
        out[name] = tensor
    return out


def _sort_header(file) -> None:
    """Sort the metadata of a safetensors file, which the library writes in random order."""
    size = int.from_bytes(file.read(8), 'little')
    head = json.loads(file.read(size))
    head['__metadata__'] = dict(sorted(head['__metadata__'].items()))
    text = json.dumps(head, separators=(',', ':'), ensure_ascii=False).encode().ljust(size)
    if len(text) != size:  # the tensors' offsets count from the end of the header, whose size must not change
        raise CheckpointError(f'{file.name}: the header cannot be written in order')
    file.seek(8)
    file.write(text)
    file.flush()


def _read_safetensors(path: Path) -> tuple[dict, dict]:
    try:
        with safe_open(path, 'pt') as file:
            header = dict(json.loads((file.metadata() or {}).get(HEADER_KEY, '{}')))
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if header.get('kind') == MODEL and isinstance(header.get('meta'), dict):
            return dict(state_dict=tensors, meta=header['meta']), {}
        return tensors, _with_current_names(header)
    except (SafetensorError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f'{path}: damaged safetensors file ({error}); download or write it again') from error


def _read_torch(path: Path, kind: str, mapped: bool) -> dict:
    from mmincubation.compat.safe_globals import allow_mm_checkpoints  # here: safetensors need no pickle
    allow_mm_checkpoints()
    try:
        if kind == 'archive':
            _require_archive_size(path)
        # Mapping saves reading the optimiser, two thirds of a training checkpoint. Only zip archives can be mapped.
        content = torch.load(path, map_location='cpu', weights_only=True, mmap=mapped and kind == 'archive')
        _require_tensor_sizes(content)
    except Exception as error:  # damaged pickles raise anything, down to IndexError
        raise CheckpointError(f'{path}: {_reason(error)}') from error
    if not isinstance(content, dict):
        raise CheckpointError(f'{path}: holds a {type(content).__name__}, not a dict of weights; save a state dict')
    return content


def _require_archive_size(path: Path) -> None:
    """Refuse an archive that unpacks to more than its size: torch stores its records uncompressed, each once."""
    with zipfile.ZipFile(path) as archive:
        sizes = [record.file_size for record in archive.infolist()]
    if sum(sizes) > path.stat().st_size:
        raise ValueError(f'its records say {sum(sizes):,} bytes, the file has {path.stat().st_size:,}')


def _require_tensor_sizes(content) -> None:
    """Refuse tensors larger than their data: a copy of one that repeats a number a billion times fills the memory."""
    left, seen = [content], {id(content)}  # visit each once: a list can contain itself, or another many times
    while left:
        value = left.pop()
        if isinstance(value, Tensor) and value.layout == torch.strided:
            if value.is_meta or value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError(f'a tensor of shape {tuple(value.shape)} has less data than that')
        elif isinstance(value, dict | list | tuple):
            items = value.values() if isinstance(value, dict) else value
            left += [item for item in items if not (id(item) in seen or seen.add(id(item)))]


def _reason(error: Exception) -> str:
    text = str(error)
    if refused := re.search(r'GLOBAL (\S+)', text):
        return (f'refused, the pickle asks for {refused[1].rstrip(".")}, which is not data; nothing was executed. '
                'At its source save the state dict alone, or convert the file to safetensors')
    if isinstance(error, EOFError) or 'unexpected EOF' in text:
        return 'is truncated; nothing was executed. Download or write it again'
    if 'Unsupported operand' in text:
        return ('written with a pickle protocol that cannot be read without executing it; nothing was executed. Save '
                'it again by torch.save, which uses protocol 2')
    lines = [line for line in text.splitlines() if line and 'weights_only' not in line] or ['']
    return (f'damaged or not plain weights ({type(error).__name__}: {lines[0][:120]}); nothing was executed. '
            'Download it again, or convert it to safetensors at its source')
