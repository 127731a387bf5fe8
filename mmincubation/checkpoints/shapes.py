"""The shapes of a ViT's tensors from its architecture, and the architecture from the shapes."""
import math
from collections.abc import Mapping

import torch
from torch import Size, Tensor
from torch.nn.functional import pad

from mmincubation.vit import ARCHS, Arch, VisionTransformer

# Public ViTs, recognised by width and qkv bias. Their heads and epsilon are known, though files do not show them.
PUBLIC = {
    **ARCHS,
    "timm's ViT-H": Arch(embed_dim=1280, depth=32, num_heads=16, patch_size=14),
}

SHOWN_BY_SHAPES = ('embed_dim', 'depth', 'patch_size', 'img_size', 'mlp_ratio', 'qkv_bias', 'init_values',
                   'num_classes')


def vit_shapes(arch: Mapping) -> dict[str, Size]:
    """Return the shapes of all tensors of a ViT by name; one with 0 classes has no head.

    `arch` may lack heads and epsilon, which do not change shapes.
    """
    with torch.device('meta'):
        vit = VisionTransformer(Arch.parse({'num_heads': 1, **arch, 'num_classes': arch['num_classes'] or 1}))
    return {name: value.shape for name, value in vit.state_dict().items()
            if arch['num_classes'] or not name.startswith('head.')}


def misfits(tensors: Mapping[str, Tensor], arch: Mapping) -> dict[str, list[str]]:
    """Return the names that keep `tensors` from being those of a plain ViT of `arch`: what they are, and the names.

    `arch` may lack what `vit_shapes` allows. The final norm may be absent or called fc_norm (after average pooling),
    and the class token with its row may be absent.
    """
    expected, own = vit_shapes(arch), {name.split('.')[0] for name in tensors}
    if 'norm' not in own:
        norms = {name: expected.pop(name) for name in ('norm.weight', 'norm.bias')}
        expected |= {f'fc_{name}': shape for name, shape in norms.items() if 'fc_norm' in own}
    if 'cls_token' not in tensors:
        rows = expected.pop('cls_token') and expected['pos_embed'][1] - 1
        expected['pos_embed'] = Size([1, rows, expected['pos_embed'][2]])
    found = dict(missing=[name for name in expected if name not in tensors],
                 unexpected=[name for name in tensors if name not in expected],
                 misshaped=[name for name in expected if name in tensors and tensors[name].shape != expected[name]])
    return {what: names for what, names in found.items() if names}


def fit_class_row(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Give `pos_embed` a row of zeros for a class token that has none; return the tensors and notes on it.

    DeiT-III and FlexiViT (timm's `no_embed_class`) add no position to the class token; adding zero is the same. Files
    of detectors (ViTDet) have the row of a class token without the token: it is left out.
    """
    rows = tensors['pos_embed'].shape[1] if 'pos_embed' in tensors else 0
    if rows > 1 and 'cls_token' not in tensors and _is_square(rows - 1):
        return (tensors | {'pos_embed': tensors['pos_embed'][:, 1:]},
                ['pos_embed: left out the row of a class token, which the file lacks'])
    if 'cls_token' not in tensors or not rows or _is_square(rows - 1) and rows > 1 or not _is_square(rows):
        return tensors, []
    return (tensors | {'pos_embed': pad(tensors['pos_embed'], (0, 0, 1, 0))},
            ['pos_embed: a row of zeros added for the class token, which has no position in the file'])


def _is_square(number: int) -> bool:
    return math.isqrt(number)**2 == number


def _mlp_ratio(hidden: int, dim: int) -> float:
    """Return a ratio of which timm makes `hidden` again: it rounds dim x ratio down."""
    ratio = hidden / dim
    return ratio if int(dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def public_arch(tensors: Mapping[str, Tensor]) -> tuple[str, Arch] | None:
    """Return name and architecture of the public ViT with the width and qkv bias of `tensors`; None without one."""
    traits = tensors['patch_embed.proj.weight'].shape[0], 'blocks.0.attn.qkv.bias' in tensors
    return next(((name, arch) for name, arch in PUBLIC.items() if (arch.embed_dim, arch.qkv_bias) == traits), None)


def differing_fields(tensors: Mapping[str, Tensor], arch: Arch) -> dict[str, tuple]:
    """Return the fields in which a whole ViT's tensors differ from `arch`, each with the file's value and the model's.

    Only what tensors show is compared. Tensors that are no whole ViT establish nothing: then the dict is empty.
    """
    try:
        shown, _ = infer_arch(tensors)
        if misfits({key: value for key, value in tensors.items() if not key.startswith('head.')},
                   shown | dict(num_classes=0)):
            return {}
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return {}
    if not shown['num_classes']:
        del shown['num_classes']
    ours = arch.to_dict() | dict(init_values=None if arch.init_values is None else 1e-5)
    shown = dict(init_values=None) | shown
    return {key: (shown[key], ours[key]) for key in SHOWN_BY_SHAPES if key in shown and shown[key] != ours[key]}


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
        img_size=math.isqrt(tensors['pos_embed'].shape[1] - ('cls_token' in tensors)) * patch,
        num_classes=tensors['head.weight'].shape[0] if 'head.weight' in tensors else 0,
        mlp_ratio=_mlp_ratio(tensors['blocks.0.mlp.fc1.weight'].shape[0], dim),
        qkv_bias='blocks.0.attn.qkv.bias' in tensors,
        global_pool='token')  # as in the public code
    if 'fc_norm.weight' in tensors:  # it pools before its norm, this ViT after it
        del fields['global_pool']
    if 'blocks.0.ls1.gamma' in tensors:
        fields['init_values'] = 1e-5  # any number switches LayerScale on; its weights are in the file
    if (known := public_arch(tensors)) is None:
        return fields, f'num_heads and norm_eps are not in the files and no known ViT of width {dim} is alike: set them'
    name, like = known
    fields.update(num_heads=like.num_heads, norm_eps=like.norm_eps)
    return fields, f'num_heads={like.num_heads} and norm_eps={like.norm_eps:g} are not in the files: taken from {name}'
