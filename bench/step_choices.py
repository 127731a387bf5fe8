"""Choices inside a training step, each timed against its alternative in turn: `python bench/step_choices.py [NAME]`.

Prints ratios of medians, the first of a pair being what this project does: above 1, the alternative is slower. With a
GPU it runs there. docs/measurements/kernels.md has the table of one CPU.
"""
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time

import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmincubation.engine.compiling import compile_blocks
from mmincubation.models import VisionTransformer
from mmincubation.models.classifier import ClsDataPreprocessor
from mmincubation.vit.attention import Attention
from mmincubation.vit.transformer import attention_as_on_gpus, build_block, run_blocks

DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
BATCH, ROUNDS = (128, 30) if DEVICE == 'cuda' else (4, 7)
clock = perf_counter if DEVICE == 'cuda' else process_time  # other programs do not count
ARCH = dict(embed_dim=768, depth=3, num_heads=12, patch_size=16, img_size=224, num_classes=1000)  # 3 blocks of ViT-B


def wait() -> None:
    if DEVICE == 'cuda':
        torch.cuda.synchronize()


def ratio(ours: Callable, other: Callable) -> tuple[float, float]:
    """Time of the other by time of ours, and ours in milliseconds; medians of calls in turn, after two of each."""
    times = {ours: [], other: []}
    for i in range(ROUNDS + 2):
        for call in (ours, other) if i % 2 else (other, ours):
            wait()
            begin = clock()
            call()
            wait()
            times[call] += [clock() - begin] if i >= 2 else []
    return median(times[other]) / median(times[ours]), 1e3 * median(times[ours])


def autocast():
    return torch.autocast(DEVICE, torch.bfloat16)


def images() -> torch.Tensor:
    return torch.randn(BATCH, 3, 224, 224, device=DEVICE)


def step(model: nn.Module, inputs: torch.Tensor, bf16: bool = True) -> None:
    """Forward and backward."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=bf16):
        loss = model(inputs).float().square().mean()
    loss.backward()
    model.zero_grad(set_to_none=True)


def vit(**arguments) -> VisionTransformer:
    return VisionTransformer(ARCH, **arguments).to(DEVICE).train()


# --- the pairs: names and two calls each

def optimisers() -> Iterator[tuple]:
    """All parameters of ViT-B: fused or not, in two groups or one per tensor."""
    def of(groups: int, **kind) -> Callable:
        model = VisionTransformer(dict(ARCH, depth=12)).to(DEVICE)
        tensors = [p for p in model.parameters()]
        for p in tensors:
            p.grad = torch.full_like(p, 1e-3)
        parts = [[p for p in tensors if p.ndim > 1], [p for p in tensors if p.ndim <= 1]]
        groups = [dict(params=part) for part in (parts if groups == 2 else [[p] for p in tensors])]
        return torch.optim.AdamW(groups, lr=1e-5, **kind).step

    fused = of(2, fused=True)
    yield 'AdamW of ViT-B: fused', 'foreach', fused, of(2, foreach=True)
    yield 'AdamW of ViT-B: fused', 'a loop', fused, of(2, foreach=False)
    yield 'AdamW of ViT-B: 2 groups', 'a group for each tensor', fused, of(150, fused=True)


def precision() -> Iterator[tuple]:
    """bfloat16 autocast against float32, of a step."""
    yield 'step: bfloat16 autocast', 'float32', partial(step, vit(), images()), partial(step, vit(), images(), False)


class Unfused(nn.Module):
    """Attention in separate operations."""

    def __init__(self, attention: nn.Module):
        super().__init__()
        self.inner = attention

    def forward(self, x, **_):
        inner = self.inner
        q, k, v = inner.qkv(x).unflatten(2, (3, inner.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = (q * inner.scale @ k.transpose(-2, -1)).softmax(-1) @ v
        return inner.proj(x.transpose(1, 2).flatten(2))


def attention() -> Iterator[tuple]:
    """One fused operation or several, of a step."""
    for bf16 in (True, False):
        other = vit()
        for block in other.blocks:
            block.attn = Unfused(block.attn)
        name = 'bfloat16' if bf16 else 'float32'
        fused = attention_as_on_gpus()(partial(step, vit(), images(), bf16))
        yield f'step, {name}: SDPA', 'unfused attention', fused, partial(step, other, images(), bf16)


def shapes() -> Iterator[tuple]:
    """Attention alone, forward and backward: windows of 14 x 14, a classifier's tokens, grids of 24 to 64."""
    layers = [Attention(768, 12), Attention(768, 12)]
    layers[1].fused_attn = False
    for kind in (torch.bfloat16, torch.float32):
        for count, tokens in ((9, 196), (4, 197), (1, 576), (1, 1024), (2, 1025), (1, 4096)):
            qkv = torch.randn(count, tokens, 3 * 768, device=DEVICE, dtype=kind, requires_grad=True)
            weights = torch.randn(count, tokens, 768, device=DEVICE, dtype=kind)
            name = f'attention, {str(kind)[6:]}, {count} x {tokens} tokens'
            yield f'{name}: SDPA', 'unfused', *(partial(attend, layer, qkv, weights) for layer in layers)


def attend(layer: nn.Module, qkv: torch.Tensor, weights: torch.Tensor) -> None:
    layer.attend(qkv).backward(weights)


class LinearPatches(nn.Module):
    """The patch embedding as a matrix product over patches laid out by hand."""

    def __init__(self, embed: nn.Module):
        super().__init__()
        self.weight, self.bias, self.size = embed.proj.weight, embed.proj.bias, embed.patch_size[0]

    def forward(self, x):
        b, c, h, w = x.shape
        x = x.unflatten(3, (w // self.size, self.size)).unflatten(2, (h // self.size, self.size))
        return F.linear(x.permute(0, 2, 4, 1, 3, 5).reshape(b, -1, c * self.size**2), self.weight.flatten(1), self.bias)


def patches() -> Iterator[tuple]:
    """Stem alone, forward and backward: layout of the images, convolution or matrix product."""
    stem = vit().patch_embed
    yield 'patch embedding: contiguous images', 'channels_last', partial(step, stem, images()), \
        partial(step, stem, images().contiguous(memory_format=torch.channels_last))
    yield 'patch embedding: convolution', 'linear', partial(step, stem, images()), \
        partial(step, LinearPatches(stem), images())


class InBFloat16(nn.Module):
    """The residual stream in bfloat16."""

    def __init__(self, model: VisionTransformer):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.classify(run_blocks(self.model.blocks, self.model.stem(x).bfloat16()))


class NormInBFloat16(nn.LayerNorm):
    """Autocast would compute it in float32."""

    def forward(self, x):
        with torch.autocast(DEVICE, enabled=False):
            return F.layer_norm(x.bfloat16(), self.normalized_shape, self.weight.bfloat16(), self.bias.bfloat16(),
                                self.eps)


def stream() -> Iterator[tuple]:
    """Residual stream and norms, of a step under autocast."""
    yield 'step: float32 residual stream', 'bfloat16', partial(step, vit(), images()), \
        partial(step, InBFloat16(vit()), images())
    other = vit()
    for block in other.blocks:
        for name in ('norm1', 'norm2'):
            setattr(block, name, NormInBFloat16(768).to(DEVICE))
    yield 'step: LayerNorm in float32', 'in bfloat16', partial(step, vit(), images()), partial(step, other, images())


def frozen() -> Iterator[tuple]:
    """Frozen blocks before (forward) and behind (input gradients) a module: cast at each step, or kept in bfloat16."""
    def blocks(kept: bool) -> nn.Sequential:
        parts = nn.Sequential(*(build_block(vit().arch) for _ in range(3))).to(DEVICE).train().requires_grad_(False)
        for layer in parts.modules():
            if kept and isinstance(layer, nn.Linear):
                layer.bfloat16()
        return parts

    def forward(parts: nn.Sequential, tokens: torch.Tensor) -> None:
        with torch.no_grad(), autocast():
            parts(tokens)

    tokens = torch.randn(BATCH, 197, 768, device=DEVICE)
    yield 'frozen blocks, forward: float32, cast each step', 'kept in bfloat16', \
        partial(forward, blocks(False), tokens), partial(forward, blocks(True), tokens)
    grad = tokens.clone().requires_grad_()
    yield 'frozen blocks, input gradients: cast', 'kept in bfloat16', partial(step, blocks(False), grad), \
        partial(step, blocks(True), grad)


def normalising() -> Iterator[tuple]:
    """uint8 to normalised float32: as written, or one multiply-add with constants made before."""
    data = dict(inputs=torch.randint(0, 256, (BATCH, 3, 224, 224), dtype=torch.uint8), labels=torch.arange(BATCH))
    ours = ClsDataPreprocessor().to(DEVICE)
    shift, scale = -ours.mean / ours.std, 1 / ours.std
    yield 'normalising: subtract, divide', 'one multiply-add', partial(ours, data), \
        lambda: torch.addcmul(shift, data['inputs'].to(DEVICE, non_blocking=True).float(), scale)


def checkpointing() -> Iterator[tuple]:
    """A step that keeps what it computes, and one that computes it again."""
    yield 'step: activations kept', 'with_cp', partial(step, vit(), images()), \
        partial(step, vit(with_cp=True), images())


def compiling() -> Iterator[tuple]:
    """Blocks as they are and compiled, of a step."""
    other = vit(drop_path_rate=0.1)
    compile_blocks(other, True)
    yield 'step: blocks not compiled', 'compiled', partial(step, vit(drop_path_rate=0.1), images()), \
        partial(step, other, images())


PARTS = dict(optimisers=optimisers, precision=precision, attention=attention, shapes=shapes, patches=patches,
             stream=stream, frozen=frozen, normalising=normalising, checkpointing=checkpointing, compiling=compiling)


def main(names: list[str]) -> None:
    """Print a table, line by line."""
    torch.manual_seed(0)
    device = torch.cuda.get_device_name() if DEVICE == 'cuda' else f'CPU, {torch.get_num_threads()} threads'
    print(f'torch {torch.__version__}, {device}, batch {BATCH}, medians of {ROUNDS}\n\n'
          '| chosen | alternative | its time by the chosen one\'s | the chosen one\'s, ms |\n|---|---|---|---|')
    for name in names or PARTS:
        for chosen, alternative, ours, other in PARTS[name]():
            factor, milliseconds = ratio(ours, other)
            print(f'| {chosen} | {alternative} | {factor:.2f} | {milliseconds:.1f} |', flush=True)


if __name__ == '__main__':
    main(sys.argv[1:])
