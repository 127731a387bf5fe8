"""Train one step with the semantics of the paper's public code, written anew: the plain reference.

This is what LeapLabTHU/Deep-Incubation does on its vendored timm of 2020 with the published commands:

- float32, and attention as two matrix products around a softmax.
- In a hybrid, the modules upstream are frozen, so they only run forward. Those downstream compute gradients of their
  weights, which add up and are never used. Stochastic depth acts on the whole hybrid.
- AdamW without `fused`, in two groups (with decay, without).
- Every step reads its loss and waits for the device.

Data arrive normalised and erased (the loader's workers do that); mixup runs on the device.
"""
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from timm.layers import drop_path
from torch import Tensor, nn

from mmincubation.incubation.model import IncubationModel
from mmincubation.incubation.phases import META, module_number
from mmincubation.vit.spec import STEM_KEYS
from mmincubation.vit.transformer import VisionTransformer

from .flops import synchronize


class PublicViT(nn.Module):
    """Run a ViT of timm's parts as timm did in 2020: images (B, 3, H, W) to logits (B, classes).

    The stem comes from `first`, norm and head from `last`: one ViT, or the two that make a hybrid. Weights are shared.
    """

    def __init__(self, first: VisionTransformer, blocks: list[nn.Module], last: VisionTransformer):
        super().__init__()
        self.patch_embed, self.cls_token, self.pos_embed = first.patch_embed, first.cls_token, first.pos_embed
        self.blocks, self.norm, self.head = nn.ModuleList(blocks), last.norm, last.head
        self.average = last.arch.global_pool == 'avg'  # which the public code has not

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, classes) of images (B, 3, H, W)."""
        tokens = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            rate = getattr(block.drop_path1, 'drop_prob', 0.)
            tokens = tokens + drop_path(attention(block.attn, block.norm1(tokens)), rate, self.training)
            tokens = tokens + drop_path(block.mlp(block.norm2(tokens)), rate, self.training)
        tokens = self.norm(tokens)
        return self.head(tokens[:, 1:].mean(1) if self.average else tokens[:, 0])


def attention(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Return self-attention of tokens (B, N, C) with all scores in memory."""
    heads = layer.num_heads
    query, key, value = layer.qkv(tokens).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(-2, -1)) * layer.scale
    return layer.proj((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


def network(model: nn.Module) -> tuple[PublicViT, list[tuple[str, nn.Parameter]]]:
    """Return what the public code runs in the model's phase, and the named parameters that its optimiser has.

    Those parameters get gradients; in a hybrid, so do all that are downstream.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not isinstance(model, IncubationModel):
        return PublicViT(model.vit, list(model.vit.blocks), model.vit), trained
    i, target, meta = module_number(model.predicting), model.target, model.meta
    if i is None:
        vit = meta if model.predicting == META else target
        return PublicViT(vit, list(vit.blocks), vit), trained
    own = [target.blocks[j] for j in model.division.span(i)]
    last, replaced = i == len(model.division) - 1, model.division.meta.span(i)
    blocks = [*meta.blocks[:replaced.start], *own, *meta.blocks[replaced.stop:]]
    for downstream in () if last else (*meta.blocks[replaced.stop:], meta.norm, meta.head):
        downstream.requires_grad_(True)
    return PublicViT(meta if i else target, blocks, target if last else meta), trained


class PublicStep:
    """Train one step of the public code on uint8 images (B, 3, H, W) and labels (B,), which are prepared once."""

    def __init__(self, model: nn.Module, batch: dict, rate: float, decay: float, wrap: Callable = lambda net: net):
        self._prepare, self.mixup = model.data_preprocessor, model.data_preprocessor.mixup
        self.device = model.data_preprocessor.mean.device
        self.feed(batch)
        net, trained = network(model)
        self.model = wrap(net)
        groups = {False: [], True: []}
        for name, parameter in trained:
            groups[parameter.ndim > 1 and name.split('.')[-1] not in STEM_KEYS].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [dict(params=members, weight_decay=decay * decays) for decays, members in groups.items()], lr=rate)
        self.optimizers = [self.optimizer]

    def feed(self, batch: dict) -> None:
        """Take another batch; prepare it as the public loader's workers would."""
        prepared = self._prepare(batch, training=False)
        self.images, self.labels = prepared['inputs'], prepared['labels']

    def __call__(self) -> float:
        """Train once; return the loss.

        Raises:
            ValueError: the loss is not finite.
        """
        images, labels = self.images.clone(), self.labels
        if self.mixup:
            images, labels = self.mixup(images, labels)
        logits = self.model(images)
        loss = F.cross_entropy(logits, labels)
        value = loss.item()
        if not math.isfinite(value):
            raise ValueError(f'the reference step has the loss {value}')
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()  # its own: gradients downstream stay, and add up
        synchronize(self.device)
        return value
