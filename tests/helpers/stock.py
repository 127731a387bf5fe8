"""A classifier with a part that mmengine loads, as it loads ResNet and Swin."""
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import nn

from mmincubation.models import ViTClassifier


@MODELS.register_module()
class Stock(BaseModule):
    """The part."""

    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.layer = nn.Linear(2, 2)


@MODELS.register_module()
class WithStock(ViTClassifier):
    """The classifier."""

    def __init__(self, arch, stock: dict):
        super().__init__(arch)
        self.stock = MODELS.build(stock)
