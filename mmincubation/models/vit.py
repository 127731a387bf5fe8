"""ONE plain Vision Transformer, built from timm's layers; its state dict is timm's."""
from functools import partial

import torch
from timm.layers import DropPath, PatchEmbed, resample_abs_pos_embed
from timm.models.vision_transformer import Block, init_weights_vit_timm
from torch import Tensor, nn

from .spec import Arch, layer_of


def drop_path_ramp(rate: float, depth: int) -> list[float]:
    """Stochastic-depth rates that rise linearly from 0 at the first of `depth` blocks to `rate` at the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


def set_drop_path(blocks, rates) -> None:
    """Give each block its stochastic-depth rate; no parameter changes, and where the rate is the same, nothing."""
    for block, rate in zip(blocks, rates, strict=True):
        if getattr(block.drop_path1, 'drop_prob', 0.) != rate:
            block.drop_path1 = DropPath(rate) if rate > 0 else nn.Identity()
            block.drop_path2 = DropPath(rate) if rate > 0 else nn.Identity()


def build_block(arch: Arch) -> Block:
    """A pre-norm transformer block of timm in the shape of `arch`."""
    return Block(
        arch.dim, arch.heads, mlp_ratio=arch.mlp_ratio, qkv_bias=arch.qkv_bias, init_values=arch.init_values,
        norm_layer=partial(nn.LayerNorm, eps=arch.norm_eps))


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Position embedding (1, prefix + h * w, C), learned on a square grid, resized to another grid (rows, columns).

    Bicubic without antialiasing: the function that ViTDet and the released dense models were trained with.
    """
    return resample_abs_pos_embed(pos_embed, list(grid), num_prefix_tokens=prefix, antialias=False)


class VisionTransformer(nn.Module):
    """A plain ViT with a class token; (B, 3, H, W) images in, (B, num_classes) logits out.

    `stem`, `blocks` and `classify` are the three pieces that hybrids are composed of.
    """

    def __init__(self, arch: 'str | dict | Arch', drop_path_rate: float = 0.):
        super().__init__()
        self.arch = arch = Arch.parse(arch)
        self.patch_embed = PatchEmbed(arch.img_size, arch.patch_size, 3, arch.dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, arch.grid**2 + 1, arch.dim))
        self.blocks = nn.ModuleList(build_block(arch) for _ in range(arch.depth))
        self.norm = nn.LayerNorm(arch.dim, eps=arch.norm_eps)
        self.head = nn.Linear(arch.dim, arch.num_classes)
        set_drop_path(self.blocks, drop_path_ramp(drop_path_rate, arch.depth))
        self.reset()

    @property
    def num_layers(self) -> int:
        """Blocks; `layer_of` counts to one more."""
        return self.arch.depth

    def layer_of(self, name: str) -> int:
        """The layer of one of this model's parameters: 0 the stem, i + 1 block i, then norm and head."""
        return layer_of(name, self.arch.depth)

    def reset(self) -> None:
        """Draw all weights anew, as timm does."""
        nn.init.trunc_normal_(self.pos_embed, std=.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for name, module in self.named_modules():
            init_weights_vit_timm(module, name)

    def stem(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to tokens (B, 1 + patches, C), the class token first."""
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.pos_embed

    def classify(self, tokens: Tensor) -> Tensor:
        """Tokens (B, N, C) to logits (B, num_classes), read off the class token or the mean of the patches."""
        tokens = self.norm(tokens)
        return self.head(tokens[:, 0] if self.arch.global_pool == 'token' else tokens[:, 1:].mean(1))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, num_classes)."""
        tokens = self.stem(images)
        for block in self.blocks:
            tokens = block(tokens)
        return self.classify(tokens)
