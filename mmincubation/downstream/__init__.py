"""The ViT in detectors and segmentors: backbone, feature pyramid, a fast COCO metric, label pictures."""
from .backbone import ViTBackbone
from .coco_metric import fast_coco_metric
from .label_pictures import LabelPictures
from .pyramid import SimpleFeaturePyramid

__all__ = ['LabelPictures', 'SimpleFeaturePyramid', 'ViTBackbone', 'fast_coco_metric']
