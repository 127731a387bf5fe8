"""Weight files: safe reading, atomic writing, key names, strict loading."""
from mmincubation.errors import CheckpointError
from mmincubation.hashes import digest, sha256_of

from .auto import asks_file, changed, settle_arch
from .files import read_tensors, write_tensors
from .fit import load_fitted, load_pretrained
from .formats import open_vit, read_vit
from .inspection import WeightsInfo, inspect_weights
from .load import load_strict, load_vit, require_fit, require_header
from .shapes import infer_arch, vit_shapes
from .timm_files import load_timm

__all__ = [
    'CheckpointError', 'WeightsInfo', 'asks_file', 'changed', 'digest', 'infer_arch', 'inspect_weights', 'load_fitted',
    'load_pretrained', 'load_strict', 'load_timm', 'load_vit', 'open_vit', 'read_tensors', 'read_vit', 'require_fit',
    'require_header', 'settle_arch', 'sha256_of', 'vit_shapes', 'write_tensors'
]
