"""From a ViT's shape to its tensors and back."""
import math
from collections.abc import Mapping

import torch
from torch import Size, Tensor

from mmincubation.models import ARCHS, Arch, VisionTransformer


def vit_shapes(arch: Mapping) -> dict[str, Size]:
    """Names and shapes of all tensors of a ViT; heads and epsilon, which shape none, may be left out of `arch`."""
    with torch.device('meta'):
        state = VisionTransformer(Arch.parse({'heads': 1, **arch})).state_dict()
    return {name: value.shape for name, value in state.items()}


def infer_arch(tensors: Mapping[str, Tensor]) -> tuple[dict, str]:
    """The `Arch` fields that a whole ViT's tensors (timm's names) show, and one line on what they do not show.

    `heads` and `norm_eps` leave no trace in the shapes: they are taken from the architecture of `ARCHS` with the same
    width and qkv bias, and left out of the fields if there is none.

    Raises:
        KeyError: a tensor that every ViT has is missing.
    """
    dim, _, patch, _ = tensors['patch_embed.proj.weight'].shape
    fields = dict(
        dim=dim,
        depth=len({key.split('.')[1] for key in tensors if key.startswith('blocks.')}),
        patch_size=patch,
        img_size=math.isqrt(tensors['pos_embed'].shape[1] - 1) * patch,
        num_classes=tensors['head.weight'].shape[0],
        mlp_ratio=tensors['blocks.0.mlp.fc1.weight'].shape[0] / dim,
        qkv_bias='blocks.0.attn.qkv.bias' in tensors,
        global_pool='token')  # what the public code's head reads; timm's pooled ViTs with fc_norm have other keys
    known = [(name, a) for name, a in ARCHS.items() if (a.dim, a.qkv_bias) == (dim, fields['qkv_bias'])]
    if not known:
        return fields, f'heads and norm_eps are not in the files and no known ViT of width {dim} is alike: set them'
    name, like = known[0]
    fields.update(heads=like.heads, norm_eps=like.norm_eps)
    return fields, f'heads={like.heads} and norm_eps={like.norm_eps:g} are not in the files: taken from {name}'
