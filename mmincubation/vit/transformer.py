"""ONE plain Vision Transformer, built from timm's layers; its state dict is timm's."""
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from timm import layers
from timm.layers import PatchEmbed, resample_abs_pos_embed, use_fused_attn
from timm.models import vision_transformer
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .spec import Arch, layer_of


def drop_path_ramp(rate: float, depth: int) -> list[float]:
    """Stochastic-depth rates that rise linearly from 0 at the first of `depth` blocks to `rate` at the last."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


class DropPath(layers.DropPath):
    """timm's stochastic depth, with the same draws, made before the block runs.

    A compiled block then knows nothing of the rate, which is another in each block and phase: as a constant it would
    be one more thing to compile for, and torch gives up after eight.
    """

    def draw(self, tokens: Tensor, generator: torch.Generator | None = None) -> None:
        """Choose the images of tokens (B, N, C) that keep the branch, for the next `forward`."""
        keep = 1 - self.drop_prob
        self.kept = tokens.new_empty(len(tokens), 1, 1).bernoulli_(keep, generator=generator)
        if keep > 0:
            self.kept.div_(keep)

    def forward(self, branch: Tensor) -> Tensor:
        """The branch (B, N, C) of the images that keep it."""
        return branch * self.kept.to(branch.dtype) if self.training else branch


class Block(vision_transformer.Block):
    """timm's pre-norm transformer block, tokens (B, N, C) to the same; its draws are not compiled with it.

    `generator`, given a device, returns what stochastic depth draws from; None: torch's own generator.
    """
    always_fused = False
    generator: Callable[[torch.device], torch.Generator] | None = None

    def __call__(self, tokens: Tensor, *more) -> Tensor:
        """Draw for stochastic depth, then run the block, compiled if `compile` was called.

        On a CPU in bfloat16, attention in several operations is faster than in one (docs/measurements/kernels.md).
        """
        self.attn.fused_attn = use_fused_attn() and (
            self.always_fused or not (tokens.is_cpu and torch.is_autocast_enabled('cpu')))
        if self.training and isinstance(self.drop_path1, DropPath):
            generator = self.generator and self.generator(tokens.device)
            self.drop_path1.draw(tokens, generator)
            self.drop_path2.draw(tokens, generator)
        return super().__call__(tokens, *more)


@contextmanager
def attention_as_on_gpus() -> Iterator[None]:
    """Inside, attention is one operation, on a CPU in bfloat16 too."""
    Block.always_fused = True
    try:
        yield
    finally:
        Block.always_fused = False


def set_drop_path(blocks: Iterable[Block], rates: Iterable[float]) -> None:
    """Give each block its stochastic-depth rate; no parameter changes, and where the rate is the same, nothing."""
    for block, rate in zip(blocks, rates, strict=True):
        if getattr(block.drop_path1, 'drop_prob', 0.) != rate:
            block.drop_path1 = DropPath(rate) if rate > 0 else nn.Identity()
            block.drop_path2 = DropPath(rate) if rate > 0 else nn.Identity()


def build_block(arch: Arch, kind: type[Block] = Block) -> Block:
    """A block in the shape of `arch`."""
    return kind(
        arch.embed_dim, arch.num_heads, mlp_ratio=arch.mlp_ratio, qkv_bias=arch.qkv_bias, init_values=arch.init_values,
        norm_layer=partial(nn.LayerNorm, eps=arch.norm_eps))


def run_block(block: Callable[..., Tensor], tokens: Tensor, *more, with_cp: bool = False) -> Tensor:
    """What `block(tokens, *more)` returns.

    `with_cp` keeps only its inputs for the backward pass, which runs it again, with the same random draws and so for
    the same gradients; without a backward pass it saves nothing and is left off.
    """
    if with_cp and torch.is_grad_enabled():
        return checkpoint(block, tokens, *more, use_reentrant=False)
    return block(tokens, *more)


def run_blocks(blocks: Iterable[Block], tokens: Tensor, with_cp: bool = False) -> Tensor:
    """Tokens (B, N, C) through all blocks; `with_cp` as in `run_block`, in training."""
    for block in blocks:
        tokens = run_block(block, tokens, with_cp=with_cp and block.training)
    return tokens


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Position embedding (1, prefix + h * w, C), learned on a square grid, resized to another grid (rows, columns).

    Bicubic without antialiasing: the function that ViTDet and the released dense models were trained with.
    """
    return resample_abs_pos_embed(pos_embed, list(grid), num_prefix_tokens=prefix, antialias=False)


class VisionTransformer(nn.Module):
    """A plain ViT with a class token; (B, 3, H, W) images in, (B, num_classes) logits out.

    `stem`, `blocks` and `classify` are the three pieces that hybrids are composed of. `with_cp`: see `run_block`.
    """

    def __init__(self, arch: 'str | dict | Arch', drop_path_rate: float = 0., with_cp: bool = False):
        super().__init__()
        self.with_cp = with_cp
        self.arch = arch = Arch.parse(arch)
        self.patch_embed = PatchEmbed(arch.img_size, arch.patch_size, 3, arch.embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, arch.grid**2 + 1, arch.embed_dim))
        self.blocks = nn.ModuleList(build_block(arch) for _ in range(arch.depth))
        self.norm = nn.LayerNorm(arch.embed_dim, eps=arch.norm_eps)
        self.head = nn.Linear(arch.embed_dim, arch.num_classes)
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
        return self.classify(run_blocks(self.blocks, self.stem(images), self.with_cp))
