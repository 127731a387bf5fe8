"""A small data set in COCO's format whose categories, ids and classes can be in any order."""
import json
from pathlib import Path

import numpy as np
from PIL import Image

from mmincubation.datasets.checked import CheckedDataset

NAMES = ('cat', 'dog', 'owl')
STEPS = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
         dict(type='PackDetInputs')]
BOXES = STEPS[:1] + [dict(type='LoadAnnotations', with_bbox=True), STEPS[2]]


def content(images: int = 4, ids: tuple = (1, 2, 3), names: tuple = NAMES) -> dict:
    """Two objects in each image, of the classes in turn."""
    found = dict(images=[], annotations=[], categories=[dict(id=i, name=n) for i, n in zip(ids, names, strict=True)])
    for i in range(images):
        found['images'].append(dict(id=i + 1, file_name=f'{i}.png', width=64, height=48))
        for k, (x, y, w, h) in enumerate([(4 + i, 5, 20, 24), (34, 20 - i, 22, 18)]):
            found['annotations'].append(dict(
                id=2 * i + k + 1, image_id=i + 1, category_id=ids[(i + k) % len(ids)], iscrowd=0, bbox=[x, y, w, h],
                area=w * h, segmentation=[[x, y, x + w, y, x + w, y + h, x, y + h]]))
    return found


def write(root: Path, change=None, name: str = 'a', **options) -> dict:
    """Write `root/<name>.json` and its images in `root/<name>/`; return the settings of a CocoDataset."""
    found = content(**options)
    (root / name).mkdir(parents=True, exist_ok=True)
    for image in found['images']:
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(root / name / image['file_name'])
    if change:
        change(found)
    (root / f'{name}.json').write_text(json.dumps(found))
    return dict(type='mmdet.CocoDataset', data_root=str(root), ann_file=f'{name}.json', data_prefix=dict(img=name),
                pipeline=STEPS, metainfo=dict(classes=NAMES))


def build(settings: dict, place: str = 'val_dataloader.dataset', **more) -> CheckedDataset:
    return CheckedDataset(dict(settings, test_mode=not place.startswith('train')) | more, place=place)


def each(kind: str, **keys):
    """A change of all entries of a kind."""
    return lambda found: [entry.update(keys) for entry in found[kind]]
