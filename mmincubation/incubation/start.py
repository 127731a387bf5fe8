"""The weights with which a target module begins its incubation."""
import torch

from mmincubation.vit.spec import HEAD_KEYS, STEM_KEYS, Division
from mmincubation.vit.transformer import VisionTransformer

STARTS = ('random', 'ends', 'grow', 'stack')


def valid_start(start: str) -> str:
    """Return `start` if it is valid; else raise ValueError."""
    if start not in STARTS:
        raise ValueError(f'unknown start {start!r}; valid: {list(STARTS)}')
    return start


@torch.no_grad()
def begin_module(target: VisionTransformer, meta: VisionTransformer, division: Division, module: int,
                 start: str) -> None:
    """Set a target module's weights before its first step.

    `random` (the paper) does not change them. `ends` (ours) copies the stem of module 0, and the norm and head of
    module K-1, from the trained meta model. `grow` (ours) also copies the meta blocks that the module replaces (one, in
    the paper) to its first blocks, and zeroes the residual branches of its other blocks (attn.proj, mlp.fc2). So before
    the first step the hybrid and the assembled model compute the function of the meta model. `stack` (a control) copies
    those meta blocks to all blocks of the module, each to neighbours in equal shares, beside the ends.

    Raises:
        ValueError: `start` is unknown.
    """
    if valid_start(start) == 'random':
        return
    _copy_ends(target, meta, division, module)
    blocks = [target.blocks[i] for i in division.span(module)]
    replaced = [meta.blocks[i] for i in division.meta.span(module)]
    stacked = [replaced[j * len(replaced) // len(blocks)] for j in range(len(blocks))]
    sources = dict(grow=replaced, stack=stacked).get(start, [])
    for block, source in zip(blocks[:len(sources)], sources, strict=True):
        block.load_state_dict(source.state_dict())
    for block in blocks[len(replaced):] if start == 'grow' else []:
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.zero_()
            layer.bias.zero_()


def _copy_ends(target: VisionTransformer, meta: VisionTransformer, division: Division, module: int) -> None:
    ends = (STEM_KEYS if module == 0 else ()) + (HEAD_KEYS if module == len(division) - 1 else ())
    source = dict(meta.named_parameters())
    for key, value in target.named_parameters():
        if key.split('.')[0] in ends:
            value.copy_(source[key])
