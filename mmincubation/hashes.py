"""Hashes of files and of tensors."""
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

CHUNK = 1 << 20


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    return _hash_chunks(hashlib.sha256(), _bytes_of(path))


def git_blob_sha1_of(path: str | Path) -> str:
    """Return git's blob hash of a file, in hex. The Hugging Face hub names files by it that are not in Git LFS."""
    return _hash_chunks(hashlib.sha1(b'blob %d\0' % Path(path).stat().st_size), _bytes_of(path))


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of names, types, shapes and values of tensors, in hex; it does not depend on a file format."""
    chunks = (chunk for name in sorted(tensors) for chunk in _chunks(name, tensors[name]))
    return _hash_chunks(hashlib.sha256(), chunks)


def _hash_chunks(total, chunks: Iterable) -> str:
    for chunk in chunks:
        total.update(chunk)
    return total.hexdigest()


def _bytes_of(path: str | Path) -> Iterator[bytes]:
    with open(path, 'rb') as file:
        yield from iter(lambda: file.read(CHUNK), b'')


def _chunks(name: str, tensor: Tensor) -> Iterator:
    tensor = tensor.detach().cpu().contiguous()
    yield f'{name}\n{tensor.dtype}\n{tuple(tensor.shape)}\n'.encode()
    yield memoryview(tensor.reshape(-1).view(torch.uint8).numpy())
