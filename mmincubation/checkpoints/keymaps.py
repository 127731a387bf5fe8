"""Translate the names of a ViT's tensors between programs, by one table."""
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor, cat

from mmincubation.errors import CheckpointError

# timm's name: mmpretrain's (VisionTransformer in an ImageClassifier), transformers' (ViTForImageClassification; None:
# it has no such tensor). `#` is a block's number; `.weight` and `.bias` follow. q, k and v are thirds of timm's qkv.
NAMES = {
    'cls_token': ('backbone.cls_token', 'vit.embeddings.cls_token'),
    'pos_embed': ('backbone.pos_embed', 'vit.embeddings.position_embeddings'),
    'patch_embed.proj': ('backbone.patch_embed.projection', 'vit.embeddings.patch_embeddings.projection'),
    'blocks.#.norm1': ('backbone.layers.#.ln1', 'vit.encoder.layer.#.layernorm_before'),
    'blocks.#.attn.q': (None, 'vit.encoder.layer.#.attention.attention.query'),
    'blocks.#.attn.k': (None, 'vit.encoder.layer.#.attention.attention.key'),
    'blocks.#.attn.v': (None, 'vit.encoder.layer.#.attention.attention.value'),
    'blocks.#.attn.qkv': ('backbone.layers.#.attn.qkv', None),
    'blocks.#.attn.proj': ('backbone.layers.#.attn.proj', 'vit.encoder.layer.#.attention.output.dense'),
    'blocks.#.ls1.gamma': ('backbone.layers.#.attn.gamma1.weight', None),
    'blocks.#.norm2': ('backbone.layers.#.ln2', 'vit.encoder.layer.#.layernorm_after'),
    'blocks.#.mlp.fc1': ('backbone.layers.#.ffn.layers.0.0', 'vit.encoder.layer.#.intermediate.dense'),
    'blocks.#.mlp.fc2': ('backbone.layers.#.ffn.layers.1', 'vit.encoder.layer.#.output.dense'),
    'blocks.#.ls2.gamma': ('backbone.layers.#.ffn.gamma2.weight', None),
    'norm': ('backbone.ln1', 'vit.layernorm'),
    'head': ('head.layers.head', 'classifier'),
}
COLUMNS = dict(mmpretrain=0, hf=1)
ALIASES = {'head.fc': 'head'}  # mmpretrain's LinearClsHead, read only
NUMBER = re.compile(r'\.(\d+)\.')


def to_timm(tensors: dict[str, Tensor], program: str) -> dict[str, Tensor]:
    """Rename tensors from `program` (a key of `COLUMNS`) to timm's names; unknown names do not change.

    Raises:
        CheckpointError: a block has one of query, key and value without the others.
    """
    column = COLUMNS[program]
    names = {row[column]: ours for ours, row in NAMES.items() if row[column]} | (ALIASES if column == 0 else {})
    return _fuse_qkv({_renamed(key, names): value for key, value in tensors.items()})


@dataclass(frozen=True)
class Format:
    """How a program names the tensors of a plain ViT, for `wrappings.find_vit`.

    A ViT is there where the key `patch` and keys that begin with `block` lie below one prefix. `to_timm` gets these
    keys after `root`, the prefix in the program's own files, and with them the keys that begin with one of `heads` and
    lie beside the last word of the prefix. It returns timm's names; names that it does not know do not change.
    """
    name: str
    patch: str
    block: str
    root: str
    heads: tuple[str, ...]
    to_timm: Callable[[dict[str, Tensor]], dict[str, Tensor]]


def without_chunks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename blocks in chunks (DINOv2's own training, `blocks.0.3.`) to blocks alone (`blocks.3.`)."""
    return {re.sub(r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.', key): value for key, value in tensors.items()}


FORMATS = (
    Format('timm', 'patch_embed.proj.weight', 'blocks.0.', '', (), without_chunks),
    Format('mmpretrain', 'patch_embed.projection.weight', 'layers.0.', 'backbone.', ('head.', ),
           partial(to_timm, program='mmpretrain')),
    Format('hf', 'embeddings.patch_embeddings.projection.weight', 'encoder.layer.0.', 'vit.', ('classifier.', ),
           partial(to_timm, program='hf')),
)


def from_timm(tensors: dict[str, Tensor], program: str) -> dict[str, Tensor]:
    """Rename tensors from timm's names to those of `program`, a key of `COLUMNS`.

    Raises:
        CheckpointError: `program` has no name for a tensor.
    """
    names = {ours: row[COLUMNS[program]] for ours, row in NAMES.items() if row[COLUMNS[program]]}
    if 'blocks.#.attn.q' in names:
        tensors = _split_qkv(tensors)
    renamed = {key: _renamed(key, names) for key in tensors}
    if homeless := [key for key, name in renamed.items() if key == name]:
        raise CheckpointError(f'{program} has no name for {homeless[0]} ({len(homeless)} such tensors); use timm names')
    return {renamed[key]: value for key, value in tensors.items()}


def _renamed(key: str, names: dict[str, str]) -> str:
    """Rename a key. `names` has whole keys, or keys without their last word, with `#` for the first number."""
    number = NUMBER.search(key)
    pattern = NUMBER.sub('.#.', key, count=1)
    owner, _, last = pattern.rpartition('.')
    if pattern not in names and owner not in names:
        return key
    name = names[pattern] if pattern in names else f'{names[owner]}.{last}'
    return name.replace('#', number[1]) if number else name


def _split_qkv(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for key, value in tensors.items():
        fused = '.attn.qkv.' in key
        thirds = zip('qkv', value.chunk(3), strict=True) if fused else [('', value)]
        out.update({key.replace('.attn.qkv.', f'.attn.{letter}.'): tensor for letter, tensor in thirds})
    return out


def _fuse_qkv(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    out = {}
    for key, value in tensors.items():
        match = re.fullmatch(r'(.+\.attn\.)[qkv](\.\w+)', key)
        thirds = [f'{match[1]}{letter}{match[2]}' for letter in 'qkv'] if match else []
        if missing := [name for name in thirds if name not in tensors]:
            raise CheckpointError(f'{key} is there without {", ".join(missing)}; the file is incomplete')
        if not match:
            out[key] = value
        elif key == thirds[0]:
            out[f'{match[1]}qkv{match[2]}'] = cat([tensors[name] for name in thirds])
    return out


def global_names(stage: dict, start: int) -> dict:
    """Return a stage with `start` added to its block numbers: local numbers become global ones.

    A negative `start` makes global numbers local.
    """
    return {_shift(key, start): value for key, value in stage.items()}


def stage_depth(stage: dict) -> int:
    """Return the number of blocks in a stage with local block numbers."""
    return 1 + max((_block(key) for key in stage), default=-1)


def entries_below(tensors: dict, prefix: str) -> dict:
    """Return the entries whose keys begin with `prefix`, with keys without it."""
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def named_tensors(value) -> dict[str, Tensor]:
    """Return `value` if it is a dict of tensors by name, else an empty dict."""
    if not isinstance(value, dict):
        return {}
    named = all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    return value if named else {}


def _block(key: str) -> int:
    number = key.split('.')[1] if key.startswith('blocks.') else ''
    return int(number) if number.isdigit() else -1


def _shift(key: str, start: int) -> str:
    block = _block(key)
    return key if block < 0 else key.replace(f'blocks.{block}.', f'blocks.{start + block}.', 1)
