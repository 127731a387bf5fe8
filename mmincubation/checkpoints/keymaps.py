"""Translate the names of a ViT's tensors between programs, by one table."""
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor, cat

from mmincubation.errors import CheckpointError

NUMBER = re.compile(r'(?<=[._])(\d+)(?=\.)')  # the number of a block is the first one in a key


@dataclass(frozen=True)
class Format:
    """The names that a program gives the tensors of a plain ViT.

    A ViT is there where the key `patch` and keys that begin with `block` lie below one prefix. `names` maps timm's
    names to those of the program's backbone, whole or without `.weight` and `.bias`; `#` is a block's number, q, k and
    v are thirds of timm's qkv. A whole model has `root` before its backbone's names, and `head` beside it. `aliases`
    map other names of the program, with `root`, to timm's.
    """
    name: str
    block: str
    names: Mapping[str, str]
    root: str = ''
    head: str = 'head'
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def patch(self) -> str:
        """The backbone's name of the patch kernel."""
        return self.names['patch_embed.proj'] + '.weight'

    @property
    def heads(self) -> tuple[str, ...]:
        """What the keys of the heads begin with that lie beside a backbone."""
        return tuple({f'{name}.' for name in (self.head, *(a for a, ours in self.aliases.items() if ours == 'head'))})

    def whole_names(self) -> dict[str, str]:
        """Return the names of a whole model for timm's."""
        return {ours: self.root + theirs for ours, theirs in self.names.items()} | {'head': self.head}

    def to_timm(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of a whole model to timm's names; unknown names do not change.

        Raises:
            CheckpointError: a block has one of query, key and value without the others.
        """
        names = {theirs: ours for ours, theirs in self.whole_names().items()} | self.aliases
        return _fuse_qkv({_renamed(_without_chunk(key), names): value for key, value in tensors.items()})


TIMM = ('cls_token', 'pos_embed', 'patch_embed.proj', 'blocks.#.norm1', 'blocks.#.attn.qkv', 'blocks.#.attn.proj',
        'blocks.#.ls1.gamma', 'blocks.#.norm2', 'blocks.#.mlp.fc1', 'blocks.#.mlp.fc2', 'blocks.#.ls2.gamma', 'norm',
        'fc_norm')
TRANSFORMERS = {
    'cls_token': 'embeddings.cls_token',
    'pos_embed': 'embeddings.position_embeddings',
    'patch_embed.proj': 'embeddings.patch_embeddings.projection',
    'blocks.#.attn.q': 'encoder.layer.#.attention.attention.query',
    'blocks.#.attn.k': 'encoder.layer.#.attention.attention.key',
    'blocks.#.attn.v': 'encoder.layer.#.attention.attention.value',
    'blocks.#.attn.proj': 'encoder.layer.#.attention.output.dense',
    'norm': 'layernorm',
}
FORMATS = (
    Format('timm', 'blocks.0.', {name: name for name in TIMM}),
    # VisionTransformer in an ImageClassifier, with VisionTransformerClsHead; LinearClsHead is read.
    Format('mmpretrain', 'layers.0.', {
        'cls_token': 'cls_token',
        'pos_embed': 'pos_embed',
        'patch_embed.proj': 'patch_embed.projection',
        'blocks.#.norm1': 'layers.#.ln1',
        'blocks.#.attn.qkv': 'layers.#.attn.qkv',
        'blocks.#.attn.proj': 'layers.#.attn.proj',
        'blocks.#.ls1.gamma': 'layers.#.attn.gamma1.weight',
        'blocks.#.norm2': 'layers.#.ln2',
        'blocks.#.mlp.fc1': 'layers.#.ffn.layers.0.0',
        'blocks.#.mlp.fc2': 'layers.#.ffn.layers.1',
        'blocks.#.ls2.gamma': 'layers.#.ffn.gamma2.weight',
        'norm': 'ln1',
        'fc_norm': 'ln2',  # after average pooling
    }, root='backbone.', head='head.layers.head', aliases={
        'head.fc': 'head',
        'backbone.layers.#.attn.attn.in_proj_weight': 'blocks.#.attn.qkv.weight',  # mmseg's VisionTransformer
        'backbone.layers.#.attn.attn.in_proj_bias': 'blocks.#.attn.qkv.bias',
        'backbone.layers.#.attn.attn.out_proj': 'blocks.#.attn.proj',
    }),
    # transformers: ViT, ViT-MAE, ViT-MSN, I-JEPA.
    Format('hf', 'encoder.layer.0.layernorm_before.', TRANSFORMERS | {
        'blocks.#.norm1': 'encoder.layer.#.layernorm_before',
        'blocks.#.norm2': 'encoder.layer.#.layernorm_after',
        'blocks.#.mlp.fc1': 'encoder.layer.#.intermediate.dense',
        'blocks.#.mlp.fc2': 'encoder.layer.#.output.dense',
    }, root='vit.', head='classifier'),
    Format('hf-dinov2', 'encoder.layer.0.norm1.', TRANSFORMERS | {
        'blocks.#.norm1': 'encoder.layer.#.norm1',
        'blocks.#.norm2': 'encoder.layer.#.norm2',
        'blocks.#.mlp.fc1': 'encoder.layer.#.mlp.fc1',
        'blocks.#.mlp.fc2': 'encoder.layer.#.mlp.fc2',
        'blocks.#.ls1.gamma': 'encoder.layer.#.layer_scale1.lambda1',
        'blocks.#.ls2.gamma': 'encoder.layer.#.layer_scale2.lambda1',
        'register_tokens': 'embeddings.register_tokens',  # the authors' names, by which timm knows DINOv2
        'mask_token': 'embeddings.mask_token',
    }, root='dinov2.', head='classifier'),
    Format('torchvision', 'encoder.layers.encoder_layer_0.', {
        'cls_token': 'class_token',
        'pos_embed': 'encoder.pos_embedding',
        'patch_embed.proj': 'conv_proj',
        'blocks.#.norm1': 'encoder.layers.encoder_layer_#.ln_1',
        'blocks.#.attn.qkv.weight': 'encoder.layers.encoder_layer_#.self_attention.in_proj_weight',
        'blocks.#.attn.qkv.bias': 'encoder.layers.encoder_layer_#.self_attention.in_proj_bias',
        'blocks.#.attn.proj': 'encoder.layers.encoder_layer_#.self_attention.out_proj',
        'blocks.#.norm2': 'encoder.layers.encoder_layer_#.ln_2',
        'blocks.#.mlp.fc1': 'encoder.layers.encoder_layer_#.mlp.0',
        'blocks.#.mlp.fc2': 'encoder.layers.encoder_layer_#.mlp.3',
        'norm': 'encoder.ln',
    }, head='heads.head', aliases={
        'encoder.layers.encoder_layer_#.mlp.linear_1': 'blocks.#.mlp.fc1',
        'encoder.layers.encoder_layer_#.mlp.linear_2': 'blocks.#.mlp.fc2',
    }),
)


def from_timm(tensors: dict[str, Tensor], program: str) -> dict[str, Tensor]:
    """Rename tensors from timm's names to those of a whole model of `program`, the name of a format.

    Raises:
        CheckpointError: the program has no name for a tensor.
    """
    names = next(known for known in FORMATS if known.name == program).whole_names()
    if 'blocks.#.attn.q' in names:
        tensors = _split_qkv(tensors)
    renamed = {key: _renamed(key, names) for key in tensors}
    if homeless := [key for key, name in renamed.items() if key == name]:
        raise CheckpointError(f'{program} has no name for {homeless[0]} ({len(homeless)} such tensors); use timm names')
    return {renamed[key]: value for key, value in tensors.items()}


def _without_chunk(key: str) -> str:
    """Rename a block in a chunk (DINOv2's own training, `blocks.0.3.`) to the block alone (`blocks.3.`)."""
    return re.sub(r'^blocks\.\d+\.(\d+)\.', r'blocks.\1.', key)


def _renamed(key: str, names: dict[str, str]) -> str:
    """Rename a key. `names` has whole keys, or keys without their last word, with `#` for the first number."""
    number = NUMBER.search(key)
    pattern = NUMBER.sub('#', key, count=1)
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
