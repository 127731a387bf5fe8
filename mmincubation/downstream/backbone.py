"""The plain ViT as a backbone of mmdet and mmseg models, with feature maps instead of logits."""
import logging

import torch
from mmengine.logging import print_log
from mmengine.model import BaseModule
from timm.layers import PatchEmbed
from timm.models.vision_transformer import init_weights_vit_timm
from torch import Tensor, nn

from mmincubation.checkpoints import asks_file, load_fitted, settle_arch
from mmincubation.models.init_cfg import valid_init_cfg
from mmincubation.registry import MODELS
from mmincubation.vit.spec import Arch, layer_of
from mmincubation.vit.transformer import build_block, drop_path_ramp, resize_pos_embed, run_block, set_drop_path

from .precision import bfloat16
from .windows import WindowBlock

RANDOM_AND_FROZEN = ('ViTBackbone: frozen=True without init_cfg: unless load_from brings others its weights stay '
                     'random, which only a control wants; for trained ones give '
                     "init_cfg=dict(type='Pretrained', checkpoint=PATH)")


def valid_taps(out_indices: tuple[int, ...], depth: int, frozen: bool) -> tuple[int, ...]:
    """Return `out_indices` as a tuple, if it is increasing and ends at the last block, or earlier in a frozen backbone.

    Else the blocks after the last index would have no gradients, which DDP refuses of parameters that train.

    Raises:
        ValueError: it is not.
    """
    taps = tuple(out_indices)
    if not taps or list(taps) != sorted(set(taps)) or taps[0] < 0 or not (
            taps[-1] < depth if frozen else taps[-1] == depth - 1):
        unused = '' if frozen else '; the blocks after the last tap would be unused, which frozen=True alone allows'
        raise ValueError(f'out_indices={taps}: give increasing block numbers from 0 that end at the last block, '
                         f'{depth - 1}{" or before" * frozen}{unused}')
    return taps


def block_windows(window_size: int, global_blocks: tuple[int, ...], arch: Arch, cls_token: bool) -> list[int]:
    """Return the window of each block, 0 if its attention is global.

    Raises:
        ValueError: an unknown block, a negative window, or windows together with a class token.
    """
    if window_size < 0:
        raise ValueError(f'window_size={window_size}: give the side in patches, or 0 for global attention')
    if window_size and cls_token:
        raise ValueError(f'cls_token=True needs global attention, but window_size={window_size}: '
                         'set window_size=0 or cls_token=False')
    if window_size and (unknown := sorted(set(global_blocks) - set(range(arch.depth)))):
        raise ValueError(f'global_blocks={unknown}: the model has blocks 0..{arch.depth - 1}')
    return [0 if i in global_blocks else window_size for i in range(arch.depth)]


@MODELS.register_module()
class ViTBackbone(BaseModule):
    """A plain ViT without norm and head, from images (B, 3, H, W) to maps (B, C, ceil(H / p), ceil(W / p)).

    It returns one float32 map for each block number in `out_indices`, of which the last must be the last block unless
    `frozen`, which computes no block after it. Images are padded with zeros at the right and the bottom to multiples of
    the patch size p. The position embedding, learned on the grid of `arch.img_size`, is resized to each input.
    Parameter names are timm's.

    `arch='auto'` is that of the file of `init_cfg`; `arch=dict(name='auto', num_heads=6)` adds what the file does not
    say. Then `cls_token` is by default whether the file has a class token, or False with windows.

    `window_size` is the side of the attention windows in patches; 0 makes all attention global. `global_blocks` have no
    windows, as in ViTDet (arXiv:2203.16527). `cls_token` keeps the class token, and its row in `pos_embed`; it needs
    global attention. `tap_norm` gives each map a new LayerNorm. `drop_path_rate` is the stochastic depth of the last
    block; the rate rises linearly from 0 at the first.

    `bf16` computes under bfloat16 autocast; weights, residual stream and maps stay float32, because mmdet converts the
    boxes it pools to the precision of the map. `with_cp` saves memory by computing blocks twice, see `run_block`.

    `frozen` keeps the weights as they were loaded: no gradients, no kept activations, always evaluation mode. The norms
    of `tap_norm` are new and train. Without a file the features are random ones, which is a control, and is logged.

    `init_weights` loads the file of `init_cfg=dict(type='Pretrained', checkpoint=PATH)`, in any format of
    docs/guides/weights.md; the optional `prefix` chooses one of several ViTs in it. Every tensor must match, except the
    classifier's norm and head and an unused class token, which are dropped. Position embedding and patch kernel are
    resized. The report is logged and stored in `load_report`. Without `init_cfg` the weights are drawn from timm's
    distributions.

    Raises:
        ValueError: arguments contradict each other; the message says which.
        CheckpointError: `init_weights` cannot read the file, or it does not match.
    """

    def __init__(self, arch: str | dict | Arch, out_indices: tuple[int, ...], window_size: int = 0,
                 global_blocks: tuple[int, ...] = (), cls_token: bool | None = None, tap_norm: bool = False,
                 drop_path_rate: float = 0., bf16: bool = False, with_cp: bool = False, frozen: bool = False,
                 init_cfg: dict | None = None):
        super().__init__(valid_init_cfg(init_cfg, 'ViTBackbone'))
        if asks_file(arch):  # the tools have replaced it
            given = self.init_cfg or {}
            found = settle_arch(dict(arch=arch, cls_token=cls_token, window_size=window_size), given.get('checkpoint'),
                                'ViTBackbone', given.get('prefix'), backbone=True)
            arch, cls_token = found['arch'], found['cls_token']
        self.arch, cls_token = Arch.parse(arch), bool(cls_token)
        arch = self.arch
        self.out_indices = valid_taps(out_indices, arch.depth, frozen)
        self.windows = block_windows(window_size, global_blocks, arch, cls_token)
        self.prefix, self.bf16, self.with_cp, self.frozen = int(cls_token), bf16, with_cp, frozen
        self.load_report: dict | None = None
        self._build(tap_norm, drop_path_rate)
        self._draw()
        if frozen:
            self.requires_grad_(False).eval()
            self.tap_norms.requires_grad_(True)

    def _build(self, tap_norm: bool, drop_path_rate: float) -> None:
        arch = self.arch
        self.patch_embed = PatchEmbed(
            arch.img_size, arch.patch_size, 3, arch.embed_dim, flatten=False, strict_img_size=False,
            dynamic_img_pad=True)  # any image size; timm pads at the right and the bottom
        if self.prefix:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, arch.embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.prefix + arch.grid**2, arch.embed_dim))
        self.blocks = nn.ModuleList(build_block(arch, WindowBlock) for _ in range(arch.depth))
        self.tap_norms = nn.ModuleList(
            nn.LayerNorm(arch.embed_dim, eps=arch.norm_eps) if tap_norm else nn.Identity() for _ in self.out_indices)
        set_drop_path(self.blocks, drop_path_ramp(drop_path_rate, arch.depth))

    def _draw(self) -> None:
        """Draw all weights from timm's distributions."""
        nn.init.trunc_normal_(self.pos_embed, std=.02)
        if self.prefix:
            nn.init.normal_(self.cls_token, std=1e-6)
        for child in (self.patch_embed, self.blocks, self.tap_norms):  # not self: timm would call our init_weights
            for module in child.modules():
                init_weights_vit_timm(module)

    @property
    def num_layers(self) -> int:
        """The number of blocks; the highest number of `layer_of` is one more."""
        return self.arch.depth

    def layer_of(self, name: str) -> int:
        """Return the layer of one of this model's parameters: 0 is the stem, i + 1 block i, then all tap norms."""
        return layer_of(name, self.arch.depth, rest=('tap_norms', ))

    def init_weights(self) -> None:
        """Load the file that `init_cfg` names; a second call changes nothing."""
        if self.is_init:
            return
        if self.init_cfg is not None:
            self.load_report = self._load(str(self.init_cfg['checkpoint']), self.init_cfg.get('prefix'))
            print_log(f'ViTBackbone: {self.load_report["path"]}: {self.load_report["coverage"]}', logger='current')
        elif self.frozen:
            print_log(RANDOM_AND_FROZEN, logger='current', level=logging.WARNING)
        self.is_init = True

    def train(self, mode: bool = True) -> 'ViTBackbone':
        """Set the mode; a frozen backbone stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    def _load(self, path: str, prefix: str | None) -> dict:
        """Load the file, on every rank, and return the report."""
        # Drop what a backbone does not have: the classifier's norm and head, and an unused class token.
        drop = ('norm', 'fc_norm', 'pre_logits', 'head', *(() if self.prefix else ('cls_token', )))
        return load_fitted(self, path, self.arch, cls_token=bool(self.prefix), drop=drop, fresh=('tap_norms', ),
                           fields=('num_heads', 'norm_eps'), prefix=prefix)

    def stem(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens (B, prefix + rows * columns, C) of images (B, 3, H, W), and their grid (rows, columns)."""
        maps = self.patch_embed(images)
        grid = tuple(maps.shape[-2:])
        tokens = maps.flatten(2).transpose(1, 2)
        if self.prefix:
            tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)
        return tokens + resize_pos_embed(self.pos_embed, grid, self.prefix), grid

    def _gradients(self) -> torch.set_grad_enabled:
        """Return a context with gradients as the caller has them, and without if the backbone is frozen."""
        return torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Map images (B, 3, H, W) to one float32 map (B, C, rows, columns) for each of `out_indices`.

        Under any autocast the residual stream stays float32, because the position embedding that is added is float32.
        """
        with bfloat16(self.bf16, images):
            with self._gradients():
                tokens, grid = self.stem(images)
            taps = []
            for i, block, window in zip(range(self.out_indices[-1] + 1), self.blocks, self.windows, strict=False):
                with self._gradients():
                    tokens = run_block(block, tokens, grid, window, with_cp=self.with_cp and self.training)
                if i in self.out_indices:
                    tap = self.tap_norms[len(taps)](tokens[:, self.prefix:]).float()
                    taps.append(tap.transpose(1, 2).unflatten(2, grid).contiguous())
        return tuple(taps)
