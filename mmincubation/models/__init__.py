"""Models that a config names: the classifier, its preprocessor and its metric. The ViT itself is in `vit`."""
from mmincubation.vit import ARCHS, Arch, Division, VisionTransformer

from .accuracy import Accuracy
from .classifier import ClsDataPreprocessor, ViTClassifier

__all__ = ['ARCHS', 'Accuracy', 'Arch', 'ClsDataPreprocessor', 'Division', 'ViTClassifier', 'VisionTransformer']
