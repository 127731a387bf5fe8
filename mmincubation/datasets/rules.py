"""Rules that a sample must satisfy for the models of mmdet and mmseg, checked before it is transformed."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.logging import print_log

from mmincubation.errors import ConfigError

from .annotations import (
    BOX_BORDER,
    annotation_faults,
    is_lost_as_polygons,
    is_outside,
    is_subpixel,
    repeated_ids,
)
from .labels import LabelRules

SHOWN = 3


class CocoAnnotationRules:
    """Replace CocoDataset's `parse_data_info`: check an image's annotations before mmdet drops some.

    A fault is stored as `fault` in the info of the image, which then has no annotations. As mmdet does, this leaves
    out annotations with `ignore`, of classes that `metainfo` does not name, and smaller than a pixel (`is_subpixel`).

    Raises:
        ConfigError: the file has a fault that no single sample has; raised at the first image.
    """

    def __init__(self, dataset: BaseDataset, masks: bool, polygons: bool):
        self.dataset, self.masks, self.polygons = dataset, masks, polygons
        self.parse, self.filter_data = dataset.parse_data_info, dataset.filter_data
        self.faults: list[str] = []
        self.subpixel: list[int] = []
        self.repeated: set[int] | None = None

    def __call__(self, raw: dict) -> dict:
        image, annotations = raw['raw_img_info'], raw['raw_ann_info']
        if self.repeated is None:
            self.repeated = self._repeated_image_ids(self.dataset.coco)
        fault = f'image id {image["id"]} occurs twice, or one of its annotations\' ids' \
            if image['id'] in self.repeated else self._fault(image, annotations)
        if fault is None:
            return self.parse(raw)
        self.faults.append(f'image {image["id"]} ({image["file_name"]}): {fault}')
        return dict(self.parse(dict(raw, raw_ann_info=[])), fault=fault)

    def filter(self) -> list[dict]:
        """Replace `filter_data`, which silently drops images without annotations: images with a fault are kept."""
        kept = {id(info) for info in self.filter_data()}  # by identity: infos are dicts and have no hash
        return [info for info in self.dataset.data_list if id(info) in kept or 'fault' in info]

    def _fault(self, image: dict, annotations: list[dict]) -> str | None:
        """Return the first fault in words that name the annotation; None without one."""
        if is_outside(image['file_name']):
            return 'its file_name leads out of the data set\'s folder'
        categories = self.dataset.coco.cats.keys()
        for annotation in annotations:
            if annotation.get('ignore'):
                continue
            wrong = next(annotation_faults(annotation, image, categories, self.masks), None)
            if wrong is None and is_subpixel(annotation):
                self.subpixel.append(annotation['id'])
            elif wrong is None and self.masks and 'segmentation' not in annotation:
                wrong = 'no segmentation'
            elif wrong is None and self.polygons and is_lost_as_polygons(annotation):
                wrong = 'no polygons but run lengths: set poly2mask=True in LoadAnnotations'
            elif wrong is None and 'area' not in annotation:
                wrong = 'no area'
            if wrong:
                return f'annotation {annotation["id"]}: {wrong}'
        return None

    def _repeated_image_ids(self, coco) -> set[int]:
        """Return the ids of images that occur twice, or have an annotation whose id does."""
        content, name = coco.dataset, self.dataset.ann_file
        known = {category['name'] for category in content['categories']}
        if lost := [c for c in self.dataset.metainfo['classes'] if c not in known]:
            raise ConfigError(f'{name} has no category {", ".join(lost[:SHOWN])}: set metainfo.classes to its names')
        if double := repeated_ids(content['categories']):
            raise ConfigError(f'{name}: category ids that occur twice: {_first(double)}; give each its own')
        annotations = content.get('annotations', [])
        if orphans := [a['id'] for a in annotations if a['image_id'] not in coco.imgs]:
            raise ConfigError(f'{name}: {len(orphans)} annotations of an image that is not in it: {_first(orphans)}')
        double = {*repeated_ids(annotations)}
        if double:
            self.dataset.ANN_ID_UNIQUE = False  # else mmdet asserts it, without naming the ids
        return {a['image_id'] for a in annotations if a['id'] in double}.union(repeated_ids(content['images']))

    def log_subpixel(self) -> None:
        """Log the annotations smaller than a pixel, which mmdet leaves out."""
        if self.subpixel:
            print_log(f'{self.dataset.ann_file}: {len(self.subpixel)} annotations without a pixel are left out: '
                      f'{_first(self.subpixel)}', 'current')

    def summary(self) -> str:
        """Return all faults in one line."""
        return f'{self.dataset.ann_file}: {len(self.faults)} images cannot be used: {_first(self.faults, "; ")}'


def _first(items, separator: str = ', ') -> str:
    items = list(items)
    return separator.join(map(str, items[:SHOWN])) + (f'{separator}...' if len(items) > SHOWN else '')


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
