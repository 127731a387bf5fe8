"""The ViT in detectors and segmentors: backbone, feature pyramid, linear head, a fast COCO metric, label pictures."""
from .backbone import ViTBackbone
from .coco_metric import fast_coco_metric, named_coco_metric
from .label_pictures import LabelPictures
from .linear_head import linear_head
from .pyramid import SimpleFeaturePyramid

__all__ = ['LabelPictures', 'SimpleFeaturePyramid', 'ViTBackbone', 'fast_coco_metric', 'linear_head',
           'named_coco_metric']
