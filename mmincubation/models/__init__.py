"""The plain Vision Transformer, its division into modules, and the classifier around it."""
from .classifier import ViTClassifier
from .spec import ARCHS, Arch, Division
from .vit import VisionTransformer

__all__ = ['ARCHS', 'Arch', 'Division', 'VisionTransformer', 'ViTClassifier']
