"""The classifier, its preprocessor and its metric, which configs name. The ViT itself is in `vit`."""
from mmincubation.vit import ARCHS, Arch, Division, VisionTransformer

from .accuracy import Accuracy
from .classifier import ClsDataPreprocessor, ViTClassifier

__all__ = ['ARCHS', 'Accuracy', 'Arch', 'ClsDataPreprocessor', 'Division', 'ViTClassifier', 'VisionTransformer']
