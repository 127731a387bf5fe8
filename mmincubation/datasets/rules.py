"""Rules that a sample must satisfy for the models of mmdet and mmseg, checked before it is transformed."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mmengine.dataset import BaseDataset

from mmincubation.errors import ConfigError

from .annotations import BOX_BORDER
from .labels import LabelRules


class CheckedPipeline:
    """A pipeline of `transforms` that checks image, boxes and label map as soon as they are read.

    Raises:
        ConfigError: a rule is broken; the message does not name the file.
    """

    def __init__(self, dataset: BaseDataset, num_classes: int | None, transforms: list[Callable]):
        self.transforms = transforms
        self.classes = num_classes or len(dataset.metainfo.get('classes') or ()) or None
        self.checks: dict[str, Callable[[dict], None]] = dict(img=require_image, gt_bboxes=self._require_boxes)
        if hasattr(dataset, 'reduce_zero_label'):  # mmseg's; maps that come with objects have classes of their own
            self.checks['gt_seg_map'] = LabelRules(dataset, self.classes)

    def __call__(self, sample: dict) -> dict | None:
        if fault := sample.pop('fault', None):
            raise ConfigError(fault)
        left = dict(self.checks)  # each is done once, when its key first appears
        for transform in self.transforms:
            sample = transform(sample)
            if sample is None:
                return None
            for key in left.keys() & sample.keys():
                left.pop(key)(sample)
        return sample

    def _require_boxes(self, sample: dict) -> None:
        boxes, labels = sample['gt_bboxes'], np.asarray(sample.get('gt_bboxes_labels', ()))
        boxes = np.asarray(getattr(boxes, 'tensor', boxes))
        if len(boxes) and boxes.shape[1] == 4:
            height, width = sample['ori_shape'][:2]  # validation has resized the image before, not the boxes
            low, high = boxes[:, :2], boxes[:, 2:]
            inside = (low >= -BOX_BORDER).all() and (high <= (width + BOX_BORDER, height + BOX_BORDER)).all()
            if not ((high > low).all() and inside):  # NaN compares false
                raise ConfigError(f'boxes that are empty, not finite or outside of its {width} x {height} pixels')
        if self.classes and len(labels) and not 0 <= labels.min() <= labels.max() < self.classes:
            raise ConfigError(f'labels of boxes that are no class (0..{self.classes - 1})')


def require_image(sample: dict) -> None:
    """Refuse an image without three channels, with values that are not finite, or of another size than annotated.

    Raises:
        ConfigError: the image is refused.
    """
    image = sample['img']
    if image.ndim != 3 or image.shape[2] != 3:
        raise ConfigError(f'an image of shape {image.shape}, not (height, width, 3)')
    if image.dtype.kind == 'f' and not np.isfinite(image).all():
        raise ConfigError('pixels that are not finite')
    annotated, size = (sample.get('height'), sample.get('width')), image.shape[:2]
    if None not in annotated and annotated != size:
        raise ConfigError(f'{size[1]} x {size[0]} pixels (turned by its orientation tag, if it has one), the '
                          f'annotations are for {annotated[1]} x {annotated[0]}')
