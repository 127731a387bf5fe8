"""The ViT in detectors and segmentors: backbone, feature pyramid, linear head, a fast COCO metric, label pictures."""
from .backbone import ViTBackbone
from .coco_metric import fast_coco_metric, named_coco_metric
from .label_pictures import LabelPictures
from .linear_head import linear_head
from .pyramid import SimpleFeaturePyramid
from .timm_vit import TimmViT

__all__ = ['LabelPictures', 'SimpleFeaturePyramid', 'TimmViT', 'ViTBackbone', 'fast_coco_metric', 'linear_head',
           'named_coco_metric']
