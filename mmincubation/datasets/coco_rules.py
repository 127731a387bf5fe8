"""Check annotations in COCO's format while mmdet's CocoDataset reads them."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from mmengine.dataset import BaseDataset

from mmincubation.errors import ConfigError

from .annotations import (
    annotation_faults,
    box_reading,
    is_lost_as_polygons,
    is_outside,
    is_part_of_one,
    is_subpixel,
    repeated_ids,
)
from .coco import Fault, coco_class, file_faults, first, in_one_line, read_json

FIX = 'correct or drop them in the JSON'
BARE = "train boxes alone: no with_mask in the pipeline, no mask_head in the model, metric='bbox' in the evaluator"
CORNERS = 'boxes that are two corners by their own segmentation'
DISAGREE = 'boxes that disagree with their own segmentation'


class CocoRules:
    """Read a CocoDataset that is not initialised yet, with its own code, and collect what is wrong.

    Categories are found by name, in the order of `metainfo.classes`. A fault of one image is stored as `fault` in its
    info, which then has no annotations. As mmdet does, this leaves out annotations with `ignore`, of classes that
    `metainfo` does not name, and smaller than a pixel (`is_subpixel`).

    `masks` says whether segmentations are used, `polygons` whether they stay polygons. After `read`: `found` has all
    faults, `file_found` those of the whole file, `images` the first fault of each image in words, `objects` the number
    of objects of each class in the images that `filter_cfg` leaves, `labelled` whether the file has annotations, `seen`
    how many of them were looked at, and `total` the number of its images.
    """

    def __init__(self, dataset: BaseDataset, masks: bool, polygons: bool):
        self.dataset, self.masks, self.polygons = dataset, masks, polygons
        self.parse, self.filter_data = dataset.parse_data_info, dataset.filter_data
        self.found: list[Fault] = []
        self.file_found: list[Fault] = []
        self.images: list[str] = []
        self.objects: Counter[str] = Counter()
        self.subpixel: list[str] = []
        self.tiny: list[str] = []  # of `usable` boxes, those of a pixel at most
        self.usable = 0
        self.readings: dict[str, list[str]] = dict(right=[], corners=[], other=[])
        self.twice: tuple[set, set] = set(), set()  # ids of images and of annotations
        self.labelled, self.seen, self.total = False, 0, 0

    def read(self) -> None:
        """Run the data set's `full_init`.

        Raises:
            ConfigError: the whole file cannot be used, or `filter_cfg` leaves no image; `found` has all reasons.
        """
        dataset = self.dataset
        dataset.COCOAPI, dataset.parse_data_info, dataset.filter_data = self._open, self._parse, self._filter
        try:
            dataset.full_init()
        finally:
            for name in ('COCOAPI', 'parse_data_info', 'filter_data'):
                vars(dataset).pop(name, None)

    def _open(self, path: str):
        content = read_json(path)
        self._refuse(list(file_faults(content, self.dataset.metainfo['classes'])))
        annotations = content.get('annotations') or []
        self.labelled, self.total = bool(annotations), len(content['images'])
        if self.masks and annotations and not any(a.get('segmentation') for a in annotations):
            self._refuse([('no annotation has a segmentation', BARE, '')])
        self.twice = {*repeated_ids(content['images'])}, {*repeated_ids(annotations)}
        if self.twice[1]:
            self.dataset.ANN_ID_UNIQUE = False  # else mmdet asserts it, without naming the ids
        return coco_class()(content)

    def _refuse(self, faults: list[Fault]) -> None:
        self.file_found += faults
        self.found += faults
        if faults:
            raise ConfigError(f'{self.dataset.ann_file}: {in_one_line(faults)}')

    def _parse(self, raw: dict) -> dict:
        image, annotations = raw['raw_img_info'], raw['raw_ann_info']
        faults = list(self._image_faults(image, annotations))
        self.found += faults
        if not faults:
            return self.parse(raw)
        what, _, where = faults[0]
        where = where.partition(' of image')[0] if where.startswith('annotation') else ''
        self.images.append(fault := f'image {image["id"]} ({image["file_name"]}): {where}{": " * bool(where)}{what}')
        return dict(self.parse(dict(raw, raw_ann_info=[])), fault=fault)

    def _image_faults(self, image: dict, annotations: list[dict]) -> Iterator[Fault]:
        name = f'image {image["id"]}'
        if image['id'] in self.twice[0]:
            yield 'image ids that occur more than once', 'give every entry its own id', name
        if is_outside(image['file_name'], self.dataset.data_prefix.get('img') or ''):
            yield ("images outside of the data set's folder", 'copy them there and correct file_name',
                   f'{name}: {image["file_name"]}')
        for annotation in annotations:
            if not annotation.get('ignore'):
                where = f'annotation {annotation["id"]} of {name}'
                yield from ((*fault, where) for fault in self._annotation_faults(annotation, image, where))

    def _annotation_faults(self, annotation: dict, image: dict, where: str) -> Iterator[tuple[str, str]]:
        self.seen += 1
        if annotation['id'] in self.twice[1]:
            yield 'annotation ids that occur more than once', 'give every entry its own id'
        wrong = list(annotation_faults(annotation, image, self.dataset.coco.cats.keys(), self.masks))
        yield from ((what, FIX) for what in wrong)
        if reading := box_reading(annotation, image):
            self.readings[reading].append(where)
        if wrong:
            return
        self.usable += 1
        if is_subpixel(annotation) or is_part_of_one(annotation, image):
            self.tiny.append(where)
        if is_subpixel(annotation):
            self.subpixel.append(where)
        elif self.masks and 'segmentation' not in annotation:
            yield 'no segmentation', 'add it, or drop the annotation'
        elif self.masks and self.polygons and is_lost_as_polygons(annotation):
            yield ('objects as run lengths, which poly2mask=False drops: set poly2mask=True in LoadAnnotations',
                   'or write polygons')
        elif 'area' not in annotation:
            yield 'no area', 'write it: width x height of the box, or the pixels of the mask'

    def _filter(self) -> list[dict]:
        """Replace `filter_data`, which silently drops images without annotations: images with a fault are kept."""
        self._refuse(list(self._box_faults()))
        infos = self.dataset.data_list
        kept = {id(info) for info in self.filter_data()}  # by identity: infos are dicts and have no hash
        left = [info for info in infos if id(info) in kept or 'fault' in info]
        if infos and not left:
            self._refuse([all_filtered(self.dataset.filter_cfg, infos)])
        classes = self.dataset.metainfo['classes']
        self.objects.update(classes[instance['bbox_label']] for info in left for instance in info['instances']
                            if not instance.get('ignore_flag'))
        return left

    def _box_faults(self) -> Iterator[Fault]:
        """Yield what is wrong with the boxes of the whole file."""
        right, corners, other = (self.readings[kind] for kind in ('right', 'corners', 'other'))
        if corners and len(corners) >= len(other):
            yield from ((CORNERS, 'write x, y, width, height', where) for where in corners)
        elif len(other) > len(right):
            yield from ((DISAGREE, 'write x, y, width, height in pixels', where) for where in other)
        if self.usable == len(self.tiny):
            yield from (('boxes of a pixel at most, and no others', 'write pixels, not parts of the image', where)
                        for where in self.tiny)

    def warnings(self) -> list[str]:
        """Return what is uncommon but no fault, one line each, without the name of the file."""
        lines = []
        if self.subpixel:
            lines.append(f'{len(self.subpixel)} annotations without a pixel are left out: {first(self.subpixel)}')
        if differ := self.readings['other'] + self.readings['corners']:
            lines.append(f'{len(differ)} {DISAGREE}: {first(differ)}')
        return lines

    def absent(self) -> str | None:
        """Return in words which classes have no object; None if all have one, or that is not known.

        So it is of unlabelled test data, and where a fault of an image takes its objects away.
        """
        if self.images:
            return None
        empty = [name for name in self.dataset.metainfo['classes'] if not self.objects[name]]
        unlabelled = not self.labelled and self.dataset.test_mode
        return absent(empty, len(self.dataset.metainfo['classes'])) if empty and not unlabelled else None

    def summary(self) -> str:
        """Return all faults of images in one line."""
        return f'{self.dataset.ann_file}: {len(self.images)} images cannot be used: {first(self.images, "; ")}'


def all_filtered(rule: dict, infos: list[dict]) -> Fault:
    """Return why `filter_cfg=rule` leaves none of these images."""
    small = sum(min(info['width'], info['height']) < rule.get('min_size', 0) for info in infos)
    empty = sum(not info['instances'] for info in infos) if rule.get('filter_empty_gt') else 0
    return (f'filter_cfg={dict(rule)} leaves none of its {len(infos)} images: {small} are smaller than min_size, '
            f'{empty} have no object of metainfo.classes', 'correct filter_cfg or metainfo.classes', '')


def absent(empty: list[str], classes: int, apart: str = 'crowds (iscrowd=1)') -> str:
    """Return in words which of the classes have no object; those set `apart` do not count."""
    which = 'no object of any class' if len(empty) == classes else \
        f'no object of {len(empty)} of {classes} classes ({first(empty)})'
    return f'{which}; {apart} do not count'
