"""timm's own ViTs as backbones of mmdet and mmseg models: registers, LayerScale, SwiGLU, rotary positions, CLIP."""
import logging
from collections.abc import Iterable
from difflib import get_close_matches
from inspect import signature

import timm
import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from timm.layers import DropPath, PatchEmbed
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from mmincubation.checkpoints import load_timm
from mmincubation.models.init_cfg import valid_init_cfg
from mmincubation.registry import MODELS
from mmincubation.vit.spec import layer_of, rate_faults

from .backbone import valid_taps
from .precision import bfloat16

# What the backbone sets itself; all other arguments of timm's classes are sizes and switches.
OWN = {'self', 'img_size', 'in_chans', 'num_classes', 'global_pool', 'drop_path_rate', 'dynamic_img_size',
       'dynamic_img_pad', 'weight_init', 'fix_init', 'device', 'dtype'}


def build_timm(name: str, img_size: int | tuple[int, int] | None, drop_path_rate: float, model_args: dict) -> nn.Module:
    """Build timm's ViT `name` for images of any size, without final norm and head.

    Raises:
        ValueError: timm has no such model, it is no ViT that fits here, or timm refuses the arguments.
    """
    if not isinstance(name, str) or not timm.is_model(name):
        raise ValueError(f'TimmViT: timm {timm.__version__} has no model {name!r}'
                         f'{_near(str(name), timm.list_models())}')
    valid = (signature(VisionTransformer).parameters.keys() | signature(Eva).parameters.keys()) - OWN
    if unknown := [key for key in model_args if key not in valid]:
        raise ValueError(f'TimmViT: model_args.{unknown[0]} is no argument of timm\'s ViTs'
                         f'{_near(unknown[0], valid)}; img_size and drop_path_rate stand beside model_args')
    if wrong := rate_faults('drop_path_rate', drop_path_rate):
        raise ValueError(wrong[0])
    try:
        model = timm.create_model(name, img_size=img_size, drop_path_rate=drop_path_rate, dynamic_img_size=True,
                                  dynamic_img_pad=True, **model_args)
    except Exception as error:  # timm has many kinds
        _require_vit(name, timm.model_entrypoint(name))
        given = dict(img_size=img_size) | model_args
        reason = ' '.join(str(error).split())
        raise ValueError(f'TimmViT: timm cannot build {name!r} with {given} ({reason})') from error
    _require_vit(name, lambda: model)
    model.prune_intermediate_layers(len(model.blocks), prune_norm=True, prune_head=True)
    for parent in list(model.blocks.modules()):
        for key, child in parent.named_children():
            if isinstance(child, DropPath):
                setattr(parent, key, _DropPath(child.drop_prob))
    return model


def _require_vit(name: str, build) -> None:
    with torch.device('meta'):
        model = build()
    plain = isinstance(model, VisionTransformer | Eva)
    if not plain or not isinstance(model.patch_embed, PatchEmbed):
        kind = type(model.patch_embed if plain else model).__name__
        raise ValueError(f"TimmViT: {name!r} is a {kind}, not one of the ViTs that run here: timm's "
                         'VisionTransformer (DeiT, DINOv2, CLIP, SigLIP) or Eva (EVA, EVA-02, DINOv3)')


def _near(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, sorted(names), 3)
    return f'; nearest: {", ".join(near)}' if near else ''


class _DropPath(DropPath):
    """timm's stochastic depth with its rate in a tensor.

    As a number it would make torch compile the block again for each rate, and give up after eight.
    """

    def __init__(self, rate: float):
        super().__init__(rate)
        self.register_buffer('keep', torch.tensor(1 - rate), persistent=False)

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch (B, N, C), scaled, and zero for images that drop it; unchanged in evaluation."""
        if not self.training:
            return branch
        kept = torch.bernoulli(self.keep.expand(len(branch), 1, 1)) / self.keep
        return branch * kept.to(branch.dtype)


@MODELS.register_module()
class TimmViT(BaseModule):
    """A ViT of timm without final norm and head, from images (B, 3, H, W) to maps (B, C, ceil(H / p), ceil(W / p)).

    `name` is that of timm's model, such as `vit_base_patch14_reg4_dinov2`; `model_args` are more of its arguments, as
    in timm's `create_model`. It returns one float32 map, as timm's `forward_intermediates` does, for each block number
    in `out_indices`, of which the last must be the last block unless `frozen`, which computes no block after it. Class
    token and registers attend and are in no map. All attention is global. Images are padded with zeros at the right and
    the bottom to multiples of the patch size p. Positions are computed for each input by timm; a learned embedding has
    the grid of `img_size`, by default the model's own.

    `tap_norm` gives each map a new LayerNorm. `drop_path_rate` is the stochastic depth of the last block; the rate
    rises linearly from 0 at the first. `bf16` computes under bfloat16 autocast; weights and maps stay float32.
    `with_cp` saves memory by computing blocks twice, with the same random draws.

    `frozen` keeps the weights as they were loaded: no gradients, no kept activations, always evaluation mode. The norms
    of `tap_norm` are new and train. Without a file the features are random ones, which is a control, and is logged.

    `init_weights` loads the file of `init_cfg=dict(type='Pretrained', checkpoint=PATH)`, under timm's names or under
    those that timm converts (docs/guides/weights.md); the optional `prefix` chooses one of several ViTs in it. Every
    tensor must match, except norm and head, which are dropped. The report is logged and stored in `load_report`.
    Without `init_cfg` the weights are drawn by timm.

    Raises:
        ValueError: timm has no such ViT, or arguments are wrong; the message says which.
        CheckpointError: `init_weights` cannot read the file, or it does not match.
    """

    def __init__(self, name: str, out_indices: tuple[int, ...], img_size: int | tuple[int, int] | None = None,
                 model_args: dict | None = None, tap_norm: bool = False, drop_path_rate: float = 0.,
                 bf16: bool = False, with_cp: bool = False, frozen: bool = False, init_cfg: dict | None = None):
        super().__init__(valid_init_cfg(init_cfg, 'TimmViT'))
        self.name, self.bf16, self.with_cp, self.frozen = name, bf16, with_cp, frozen
        self.vit = build_timm(name, img_size, drop_path_rate, dict(model_args or {}))
        self.out_indices = valid_taps(out_indices, self.num_layers, frozen)
        self.tap_norms = nn.ModuleList(nn.LayerNorm(self.vit.embed_dim, eps=1e-6) if tap_norm else nn.Identity()
                                       for _ in self.out_indices)
        self.load_report: dict | None = None
        if frozen:
            self.vit.requires_grad_(False)
            self.eval()

    @property
    def num_layers(self) -> int:
        """The number of blocks; the highest number of `layer_of` is one more."""
        return len(self.vit.blocks)

    def layer_of(self, name: str) -> int:
        """Return the layer of one of this model's parameters: 0 is the stem, i + 1 block i, then all tap norms."""
        inner = name.removeprefix('vit.')
        if name != inner and not inner.startswith('blocks.'):
            return 0  # patches, positions, class token, registers, the norm before the blocks
        return layer_of(inner, self.num_layers, rest=('tap_norms', ))

    def init_weights(self) -> None:
        """Load the file that `init_cfg` names; a second call changes nothing."""
        if self.is_init:
            return
        if self.init_cfg is not None:
            report = load_timm(self.vit, self.name, str(self.init_cfg['checkpoint']), self.init_cfg.get('prefix'))
            fresh = '; fresh: tap_norms' * any(True for _ in self.tap_norms.parameters())
            self.load_report = report | dict(coverage=report['coverage'] + fresh)
            print_log(f'TimmViT: {report["path"]}: {self.load_report["coverage"]}', logger='current')
        elif self.frozen:
            print_log('TimmViT: frozen=True without init_cfg: unless load_from brings others its weights stay random, '
                      'which only a control wants', logger='current', level=logging.WARNING)
        self.is_init = True

    def train(self, mode: bool = True) -> 'TimmViT':
        """Set the mode; a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to one float32 map (B, C, rows, columns) for each of `out_indices`."""
        self.vit.grad_checkpointing = self.with_cp and self.training and torch.is_grad_enabled()
        with bfloat16(self.bf16, images):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
                maps = self.vit.forward_intermediates(images, indices=list(self.out_indices), stop_early=True,
                                                       intermediates_only=True)
            maps = [norm(tap.permute(0, 2, 3, 1)) for norm, tap in zip(self.tap_norms, maps, strict=True)]
        return tuple(tap.float().permute(0, 3, 1, 2).contiguous() for tap in maps)
