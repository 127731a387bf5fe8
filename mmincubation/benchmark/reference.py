"""The plain reference: a training step with the semantics of the paper's public code, in our own words.

What LeapLabTHU/Deep-Incubation does, on its vendored timm of 2020, and the published commands ask for: float32;
attention as two matrix products around a softmax; of a hybrid, the modules upstream are frozen (so they run forward
alone), those downstream compute gradients of their weights, which add up and are never used; stochastic depth over the
whole hybrid; AdamW as it comes, in two groups (with decay, without); every step reads its loss and waits for the
device. Data arrive normalised and erased (its loader's workers do that), mixup is on the device.
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
    """A ViT of timm's parts, run as timm did in 2020; (B, 3, H, W) images in, (B, classes) logits out.

    Stem from `first`, norm and head from `last`: of one ViT, or of the two that make a hybrid. Weights are shared.
    """

    def __init__(self, first: VisionTransformer, blocks: list[nn.Module], last: VisionTransformer):
        super().__init__()
        self.patch_embed, self.cls_token, self.pos_embed = first.patch_embed, first.cls_token, first.pos_embed
        self.blocks, self.norm, self.head = nn.ModuleList(blocks), last.norm, last.head
        self.average = last.arch.global_pool == 'avg'  # which the public code has not

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes)."""
        tokens = self.patch_embed.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        for block in self.blocks:
            rate = getattr(block.drop_path1, 'drop_prob', 0.)
            tokens = tokens + drop_path(attention(block.attn, block.norm1(tokens)), rate, self.training)
            tokens = tokens + drop_path(block.mlp(block.norm2(tokens)), rate, self.training)
        tokens = self.norm(tokens)
        return self.head(tokens[:, 1:].mean(1) if self.average else tokens[:, 0])


def attention(layer: nn.Module, tokens: Tensor) -> Tensor:
    """Self-attention (B, N, C) with every score in memory."""
    heads = layer.num_heads
    query, key, value = layer.qkv(tokens).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    scores = (query @ key.transpose(-2, -1)) * layer.scale
    return layer.proj((scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2))


def network(model: nn.Module) -> tuple[PublicViT, list[tuple[str, nn.Parameter]]]:
    """What the public code runs in the model's phase, and the named parameters that its optimiser has.

    Sets which weights have gradients: those, and of a hybrid also all that is downstream.
    """
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not isinstance(model, IncubationModel):
        return PublicViT(model.vit, list(model.vit.blocks), model.vit), trained
    i, target, meta = module_number(model.shown), model.target, model.meta
    if i is None:
        vit = meta if model.shown == META else target
        return PublicViT(vit, list(vit.blocks), vit), trained
    own = [target.blocks[j] for j in model.division.span(i)]
    last = i == len(model.division) - 1
    blocks = [*meta.blocks[:i], *own, *meta.blocks[i + 1:]]
    for part in () if last else (*meta.blocks[i + 1:], meta.norm, meta.head):
        part.requires_grad_(True)
    return PublicViT(meta if i else target, blocks, target if last else meta), trained


class PublicStep:
    """One training step of the public code on a batch of uint8 images (B, 3, H, W) and labels (B,), kept prepared."""

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
        """Take another batch; what the public loader's workers would have done to it is done here."""
        prepared = self._prepare(batch, training=False)
        self.images, self.labels = prepared['inputs'], prepared['labels']

    def __call__(self) -> float:
        """Train once; returns the loss."""
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
