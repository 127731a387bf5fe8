"""The simple feature pyramid of ViTDet, which makes all scales from one map."""
import torch.nn.functional as F
from mmengine.model import BaseModule
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from mmincubation.registry import MODELS

from .precision import bfloat16


def _rescale(channels: int, scale: float) -> tuple[list[nn.Module], int]:
    """Return layers that resize a map by `scale`, and the number of channels of their output."""
    half, quarter = channels // 2, channels // 4
    if scale == 4:
        return [nn.ConvTranspose2d(channels, half, 2, 2), LayerNorm2d(half), nn.GELU(),
                nn.ConvTranspose2d(half, quarter, 2, 2)], quarter
    if scale == 2:
        return [nn.ConvTranspose2d(channels, half, 2, 2)], half
    if scale == 1:
        return [], channels
    if scale == 0.5:
        return [nn.MaxPool2d(2, 2)], channels
    raise ValueError(f'SimpleFeaturePyramid has no scale {scale}; valid: 4, 2, 1, 0.5')


def _level(in_channels: int, out_channels: int, scale: float) -> nn.Sequential:
    layers, channels = _rescale(in_channels, scale)
    return nn.Sequential(
        *layers,
        nn.Conv2d(channels, out_channels, 1, bias=False), LayerNorm2d(out_channels),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), LayerNorm2d(out_channels))


@MODELS.register_module()
class SimpleFeaturePyramid(BaseModule):
    """Maps of several scales from the backbone's last map, by the operations of detectron2.

    `scales` are relative to that map, finest first. Further levels, up to `num_outs`, take every second row and column
    of the level before. `bf16` computes under bfloat16 autocast. The maps are always float32, because mmdet converts
    the boxes it pools to the precision of the map. Source: ViTDet, arXiv:2203.16527.

    Raises:
        ValueError: a scale is unknown or out of order, or `num_outs` is less than the number of scales.
    """

    def __init__(self, in_channels: int, out_channels: int = 256, scales: tuple[float, ...] = (4, 2, 1, 0.5),
                 num_outs: int = 5, bf16: bool = False, init_cfg: dict | None = None):
        super().__init__(init_cfg)
        if not scales or list(scales) != sorted(set(scales), reverse=True):
            raise ValueError(f'scales={scales}: give each scale once, finest (largest) first')
        if num_outs < len(scales):
            raise ValueError(f'num_outs={num_outs} is less than the {len(scales)} scales')
        self.num_outs, self.bf16 = num_outs, bf16
        self.levels = nn.ModuleList(_level(in_channels, out_channels, scale) for scale in scales)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Map the last of `inputs` (B, in_channels, h, w) to `num_outs` maps (B, out_channels, ...), finest first."""
        with bfloat16(self.bf16, inputs[-1]):
            outputs = [level(inputs[-1]).float() for level in self.levels]
        while len(outputs) < self.num_outs:
            outputs.append(F.max_pool2d(outputs[-1], kernel_size=1, stride=2))
        return tuple(outputs)
