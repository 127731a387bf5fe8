"""The plain Vision Transformer, built from timm's layers, with timm's parameter names."""
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

from .attention import Attention
from .spec import Arch, layer_of, rate_faults


def drop_path_ramp(rate: float, depth: int) -> list[float]:
    """Return `depth` stochastic-depth rates, which rise linearly from 0 at the first block to `rate` at the last.

    Raises:
        ValueError: `rate` is not from 0 to below 1.
    """
    if wrong := rate_faults('drop_path_rate', rate):
        raise ValueError(wrong[0])
    return [rate * i / max(depth - 1, 1) for i in range(depth)]


class DropPath(layers.DropPath):
    """timm's stochastic depth with the same draws, made before the block runs.

    So the rate is no constant of a compiled block. It differs between blocks and phases: torch would compile the block
    again for each rate, and gives up after eight.
    """

    def draw(self, tokens: Tensor, generator: torch.Generator | None = None) -> None:
        """Draw which images of tokens (B, N, C) keep their branch in the next `forward`."""
        keep = 1 - self.drop_prob
        self.kept = tokens.new_empty(len(tokens), 1, 1).bernoulli_(keep, generator=generator)
        if keep > 0:  # at keep 0 all are dropped, and there is nothing to scale
            self.kept.div_(keep)

    def forward(self, branch: Tensor) -> Tensor:
        """Return the branch (B, N, C), scaled, and zero for images that drop it; unchanged in evaluation."""
        return branch * self.kept.to(branch.dtype) if self.training else branch


class Block(vision_transformer.Block):
    """timm's pre-norm transformer block, from tokens (B, N, C) to tokens. Stochastic depth draws outside compiled code.

    `generator(device)` returns the generator of these draws; None means torch's default generator.
    """
    always_fused = False
    generator: Callable[[torch.device], torch.Generator] | None = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, attn_layer=Attention, **kwargs)

    def __call__(self, tokens: Tensor, *more) -> Tensor:
        """Draw for stochastic depth, then run the block, in compiled form if `compile` was called.

        On a CPU in bfloat16, attention runs as several operations, which are faster than the fused one
        (docs/measurements/kernels.md).
        """
        self.attn.fused_attn = use_fused_attn() and (
            self.always_fused or not (tokens.is_cpu and torch.is_autocast_enabled('cpu')))
        if self.training and isinstance(self.drop_path1, DropPath):  # here, because `__call__` is never compiled
            generator = self.generator and self.generator(tokens.device)
            self.drop_path1.draw(tokens, generator)
            self.drop_path2.draw(tokens, generator)
        return super().__call__(tokens, *more)


@contextmanager
def attention_as_on_gpus() -> Iterator[None]:
    """Run attention as one fused operation inside, on a CPU in bfloat16 too."""
    Block.always_fused = True
    try:
        yield
    finally:
        Block.always_fused = False


def set_drop_path(blocks: Iterable[Block], rates: Iterable[float]) -> None:
    """Set the stochastic-depth rate of each block. Parameters and blocks that have their rate already do not change."""
    for block, rate in zip(blocks, rates, strict=True):
        # A new module could make torch compile the block again, so an equal rate keeps the old one.
        if getattr(block.drop_path1, 'drop_prob', 0.) != rate:
            block.drop_path1 = DropPath(rate) if rate > 0 else nn.Identity()
            block.drop_path2 = DropPath(rate) if rate > 0 else nn.Identity()


def build_block(arch: Arch, kind: type[Block] = Block) -> Block:
    """Build one block of the shape `arch`."""
    return kind(
        arch.embed_dim, arch.num_heads, mlp_ratio=arch.mlp_ratio, qkv_bias=arch.qkv_bias, init_values=arch.init_values,
        norm_layer=partial(nn.LayerNorm, eps=arch.norm_eps))


def run_block(block: Callable[..., Tensor], tokens: Tensor, *more, with_cp: bool = False) -> Tensor:
    """Return `block(tokens, *more)`.

    `with_cp` keeps only the inputs for the backward pass, which runs the block again with the same random draws, so
    gradients do not change. Without a backward pass it is ignored, because it would save nothing.
    """
    if with_cp and torch.is_grad_enabled():
        return checkpoint(block, tokens, *more, use_reentrant=False)
    return block(tokens, *more)


def run_blocks(blocks: Iterable[Block], tokens: Tensor, with_cp: bool = False) -> Tensor:
    """Pass tokens (B, N, C) through all blocks; `with_cp` is that of `run_block`, for blocks in training."""
    for block in blocks:
        tokens = run_block(block, tokens, with_cp=with_cp and block.training)
    return tokens


def resize_pos_embed(pos_embed: Tensor, grid: tuple[int, int], prefix: int) -> Tensor:
    """Resize a position embedding (1, prefix + n * n, C), learned on a square grid, to a grid of (rows, columns).

    Interpolation is bicubic without antialiasing, as in ViTDet and in the released dense models.
    """
    return resample_abs_pos_embed(pos_embed, list(grid), num_prefix_tokens=prefix, antialias=False)


class VisionTransformer(nn.Module):
    """A plain ViT with a class token, from images (B, 3, H, W) to logits (B, num_classes).

    Hybrids are composed of its `stem`, `blocks` and `classify`. `run_block` describes `with_cp`.
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
        """The number of blocks; the highest number of `layer_of` is one more."""
        return self.arch.depth

    def layer_of(self, name: str) -> int:
        """Return the layer of one of this model's parameters: 0 is the stem, i + 1 block i, then norm and head."""
        return layer_of(name, self.arch.depth)

    def reset(self) -> None:
        """Draw all weights anew, from timm's distributions."""
        nn.init.trunc_normal_(self.pos_embed, std=.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for name, module in self.named_modules():
            init_weights_vit_timm(module, name)

    def stem(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to tokens (B, 1 + patches, C), the class token first."""
        tokens = self.patch_embed(images)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + self.pos_embed

    def classify(self, tokens: Tensor) -> Tensor:
        """Map tokens (B, N, C) to logits (B, num_classes), from the class token or the mean of the patch tokens."""
        tokens = self.norm(tokens)
        return self.head(tokens[:, 0] if self.arch.global_pool == 'token' else tokens[:, 1:].mean(1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, num_classes)."""
        return self.classify(run_blocks(self.blocks, self.stem(images), self.with_cp))
