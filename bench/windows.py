"""A windowed block of ViT-B, forward and backward: ours against windows cut by timm's SAM functions before the linear
layers (as detectron2 does too), by processor time in one thread, in turn.

python bench/windows.py [--runs 7] [--dim 768]
"""
import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from timm.models.vision_transformer_sam import window_partition, window_unpartition
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.downstream import windows
from mmincubation.models import Arch
from mmincubation.vit.transformer import build_block

CASES = [((32, 32), 14, 2), ((40, 60), 14, 1), ((50, 67), 14, 1), ((50, 84), 14, 1), ((64, 64), 14, 1),
         ((28, 28), 14, 2)]  # (grid, window, images)


def cut_before(attention, tokens, grid, size):
    """Padding, partition, attention with its linear layers, the way back."""
    cut, padded = window_partition(tokens.unflatten(1, grid), size)
    cut = attention(cut.flatten(1, 2)).unflatten(1, (size, size))
    return window_unpartition(cut, size, grid, padded).flatten(1, 2)


def run(attend, block, tokens, grid, size, bf16: bool) -> list[torch.Tensor]:
    """Output and gradients of a block whose windows `attend` makes."""
    block.zero_grad()
    tokens = tokens.detach().requires_grad_()
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        after = tokens + attend(block.attn, block.norm1(tokens), grid, size)
        out = after + block.mlp(block.norm2(after))
    out.backward(torch.ones_like(out).cumsum(1) / out.shape[1])
    return [out.detach(), tokens.grad, *(p.grad for p in block.parameters())]


def seconds(*args) -> float:
    start = time.process_time()
    run(*args)
    return time.process_time() - start


def compare(dim: int, grid: tuple[int, int], size: int, batch: int, bf16: bool, runs: int) -> str:
    torch.manual_seed(0)
    block = build_block(Arch(embed_dim=dim, depth=1, num_heads=dim // 64))
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=.05)
    case = block, torch.randn(batch, grid[0] * grid[1], dim), grid, size, bf16
    expected, found = run(cut_before, *case), run(windows.attend_in_windows, *case)
    far = max((a - b).norm() / b.norm() for a, b in zip(found, expected, strict=True)).item()
    taken = [(seconds(cut_before, *case), seconds(windows.attend_in_windows, *case)) for _ in range(runs)]
    return (f'| {grid[0]} x {grid[1]} | {size} | {batch} | {"bf16" if bf16 else "fp32"} | '
            f'{statistics.median(a / b for a, b in taken):.2f} | {far:.0e} |')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--runs', type=int, default=7)
    parser.add_argument('--dim', type=int, default=768)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print('| grid | window | images | precision | times as fast | norm of the difference |\n|---|---|---|---|---|---|')
    for grid, size, batch in CASES:
        for bf16 in (False, True):
            print(compare(args.dim, grid, size, batch, bf16, args.runs), flush=True)
