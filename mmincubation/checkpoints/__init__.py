"""Weights on disk: safe reading and atomic writing, key names, strict loading."""
from .files import CheckpointError, digest, read_tensors, sha256_of, write_tensors
from .keymaps import read_vit
from .load import check_fit, check_header, load_strict, load_vit
from .shapes import infer_arch, vit_shapes

__all__ = [
    'CheckpointError', 'check_fit', 'check_header', 'digest', 'infer_arch', 'load_strict', 'load_vit', 'read_tensors',
    'read_vit', 'sha256_of', 'vit_shapes', 'write_tensors'
]
