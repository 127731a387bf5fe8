"""The ViT in detectors and segmentors: backbone, feature pyramid, and a fast COCO metric."""
from .backbone import ViTBackbone
from .coco_metric import fast_coco_metric, named_coco_metric
from .pyramid import SimpleFeaturePyramid

__all__ = ['SimpleFeaturePyramid', 'ViTBackbone', 'fast_coco_metric', 'named_coco_metric']
