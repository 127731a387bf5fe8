"""The hybrid network: the meta model with one of its parts replaced by a module of the target."""
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from mmincubation.vit import Division, VisionTransformer
from mmincubation.vit.transformer import run_blocks


class TargetModule(nn.Module):
    """Module i of the target as a separate network, which DistributedDataParallel can wrap.

    It maps tokens (B, N, C) to tokens; the first module takes images, the last returns logits. Its parameters are the
    target's own, and it registers no others.
    """

    def __init__(self, target: VisionTransformer, division: Division, i: int):
        super().__init__()
        self.target = [target]  # in a list, so that the other modules are not registered
        self.span, self.is_first, self.is_last = division.span(i), i == 0, i == len(division) - 1
        self.owned = nn.ParameterList(division.entries_of(dict(target.named_parameters()), i).values())

    def forward(self, inputs: Tensor) -> Tensor:
        """Run the blocks of the module, after the stem if it is the first, before norm and head if it is the last."""
        target, = self.target
        tokens = target.stem(inputs) if self.is_first else inputs
        tokens = run_blocks(target.blocks[self.span.start:self.span.stop], tokens, target.with_cp)
        return target.classify(tokens) if self.is_last else tokens


class Hybrid(nn.Module):
    """Map images (B, 3, H, W) to logits (B, classes) by the meta model with part i replaced by target module i.

    Only the module trains. `upstream(images, block)` returns the tokens that enter a meta block; hybrids that train on
    the same batch may share one `SharedUpstream`. Source: Deep Incubation, arXiv 2212.04129, figure 2.
    """

    def __init__(self, target: VisionTransformer, meta: VisionTransformer, division: Division, i: int,
                 upstream: Callable[[Tensor, int], Tensor] | None = None):
        super().__init__()
        self.meta, self.module = meta, TargetModule(target, division, i)
        self.replaced = division.meta.span(i)
        self.upstream = upstream or partial(run_upstream, meta)

    def forward(self, images: Tensor) -> Tensor:
        """Run the frozen meta blocks before the module, the module, and the frozen meta blocks after it."""
        meta, first, after = self.meta, self.replaced.start, self.replaced.stop
        tokens = self.upstream(images, first) if first else images  # frozen, and no gradient is needed there
        tokens = self.module(tokens)  # the module that incubates
        if after == len(meta.blocks):
            return tokens  # the last module has norm and head of its own
        tokens = run_blocks(meta.blocks[after:], tokens, meta.with_cp)  # frozen, but gradients pass to the module
        return meta.classify(tokens)


@torch.no_grad()
def run_upstream(meta: VisionTransformer, images: Tensor, block: int) -> Tensor:
    """Return the tokens that enter a block of the meta model."""
    return run_blocks(meta.blocks[:block], meta.stem(images))


class SharedUpstream:
    """`run_upstream` for hybrids that train on the same batch one after another: each meta block runs once.

    A call continues from the meta tokens of the call before it. The last hybrid, which replaces the meta model's last
    blocks, frees the tokens.
    """

    def __init__(self, meta: VisionTransformer, division: Division):
        self.meta, self.images, self.tokens, self.done = meta, None, None, 0
        self.last = division.meta.span(len(division) - 1).start

    @torch.no_grad()
    def __call__(self, images: Tensor, block: int) -> Tensor:
        """Return the tokens that enter a block of the meta model; its number rises within a batch."""
        if images is not self.images:
            self.images, self.tokens, self.done = images, self.meta.stem(images), 0
        tokens = self.tokens = run_blocks(self.meta.blocks[self.done:block], self.tokens)
        self.done = block
        if block == self.last:
            self.images = self.tokens = None
        return tokens
