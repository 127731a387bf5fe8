"""The ViT in detectors and segmentors: backbone, feature pyramid, a fast COCO metric, label pictures."""
from .backbone import ViTBackbone
from .coco_metric import fast_coco_metric, named_coco_metric
from .label_pictures import LabelPictures
from .pyramid import SimpleFeaturePyramid
from .timm_vit import TimmViT

__all__ = ['LabelPictures', 'SimpleFeaturePyramid', 'TimmViT', 'ViTBackbone', 'fast_coco_metric', 'named_coco_metric']
