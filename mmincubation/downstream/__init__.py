"""The ViT in detectors and segmentors: backbone and feature pyramid."""
from .backbone import ViTBackbone
from .pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid', 'ViTBackbone']
