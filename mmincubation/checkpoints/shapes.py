"""The shapes of a ViT's tensors from its architecture, and the architecture from the shapes."""
import math
from collections.abc import Mapping

import torch
from torch import Size, Tensor

from mmincubation.vit import ARCHS, Arch, VisionTransformer

# Public ViTs, recognised by width and qkv bias. Their heads and epsilon are known, though files do not show them.
PUBLIC = {
    'DeiT-Ti': Arch(embed_dim=192, depth=12, num_heads=3),
    'DeiT-S': Arch(embed_dim=384, depth=12, num_heads=6),
    **ARCHS,
    "timm's ViT-H": Arch(embed_dim=1280, depth=32, num_heads=16, patch_size=14),
}


def vit_shapes(arch: Mapping) -> dict[str, Size]:
    """Return the shapes of all tensors of a ViT by name; one with 0 classes has no head.

    `arch` may lack heads and epsilon, which do not change shapes.
    """
    with torch.device('meta'):
        vit = VisionTransformer(Arch.parse({'num_heads': 1, **arch, 'num_classes': arch['num_classes'] or 1}))
    return {name: value.shape for name, value in vit.state_dict().items()
            if arch['num_classes'] or not name.startswith('head.')}


def public_arch(tensors: Mapping[str, Tensor]) -> tuple[str, Arch] | None:
    """Return name and architecture of the public ViT with the width and qkv bias of `tensors`; None without one."""
    traits = tensors['patch_embed.proj.weight'].shape[0], 'blocks.0.attn.qkv.bias' in tensors
    return next(((name, arch) for name, arch in PUBLIC.items() if (arch.embed_dim, arch.qkv_bias) == traits), None)


def infer_arch(tensors: Mapping[str, Tensor]) -> tuple[dict, str]:
    """Return the `Arch` fields that a whole ViT's tensors (timm's names) show, and one line on what they do not show.

    Shapes do not show `num_heads` and `norm_eps`: they are those of the public ViT with the same width and qkv bias,
    and missing without one. A file without a head has `num_classes` 0.

    Raises:
        KeyError: a tensor that every ViT has is missing.
    """
    dim, _, patch, _ = tensors['patch_embed.proj.weight'].shape
    fields = dict(
        embed_dim=dim,
        depth=len({key.split('.')[1] for key in tensors if key.startswith('blocks.')}),
        patch_size=patch,
        img_size=math.isqrt(tensors['pos_embed'].shape[1] - 1) * patch,
        num_classes=tensors['head.weight'].shape[0] if 'head.weight' in tensors else 0,
        mlp_ratio=tensors['blocks.0.mlp.fc1.weight'].shape[0] / dim,
        qkv_bias='blocks.0.attn.qkv.bias' in tensors,
        global_pool='token')  # as in the public code; timm's pooled ViTs have other keys (fc_norm)
    if 'blocks.0.ls1.gamma' in tensors:
        fields['init_values'] = 1e-5  # any number switches LayerScale on; its weights are in the file
    if (known := public_arch(tensors)) is None:
        return fields, f'num_heads and norm_eps are not in the files and no known ViT of width {dim} is alike: set them'
    name, like = known
    fields.update(num_heads=like.num_heads, norm_eps=like.norm_eps)
    return fields, f'num_heads={like.num_heads} and norm_eps={like.norm_eps:g} are not in the files: taken from {name}'
