"""The linear head of segmentation: how much of the classes do features know, without a network behind them?"""
from functools import cache

from torch import Tensor

from mmincubation.registry import MODELS


@cache
def head_class() -> type:
    """Create the class on its first use: it derives from mmseg's, which takes long to import."""
    from mmcv.cnn import build_norm_layer
    from mmseg.models.decode_heads.decode_head import BaseDecodeHead

    class LinearHead(BaseDecodeHead):
        """Normalise the channels of a map by BatchNorm and classify each place by a 1 x 1 convolution.

        After a LayerNorm (`tap_norm`) this is the linear evaluation of DINOv2 (arXiv:2304.07193). With
        `input_transform='resize_concat'` it reads several maps. Further keys are those of mmseg's BaseDecodeHead.
        """

        def __init__(self, in_channels, norm_cfg=dict(type='SyncBN'), dropout_ratio=0., **kwargs):  # noqa: B006
            channels = in_channels if isinstance(in_channels, int) else sum(in_channels)
            super().__init__(in_channels, channels, norm_cfg=norm_cfg, dropout_ratio=dropout_ratio, **kwargs)
            self.norm = build_norm_layer(norm_cfg, channels)[1]

        def forward(self, inputs: tuple[Tensor, ...]) -> Tensor:
            """Return the logits (B, classes, rows, columns) of a backbone's maps."""
            return self.cls_seg(self.norm(self._transform_inputs(inputs)))

    return LinearHead


@MODELS.register_module(name='LinearHead')
def linear_head(**options):
    """Return a LinearHead, see `head_class`; it stands in the place of one of mmseg's decode heads."""
    return head_class()(**options)


linear_head.makes = head_class  # whose keys a config may give
