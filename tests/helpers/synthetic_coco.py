"""Synthetic data in COCO's format: annotations of any number of images, plausible predictions, and a small data set."""
import json
from pathlib import Path

import numpy as np
from PIL import Image
from pycocotools import mask as mask_utils

GAPS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
CATEGORY_IDS = [i for i in range(1, 91) if i not in GAPS]  # COCO's 80


def categories() -> list[dict]:
    """COCO's 80 categories, with their ids and names."""
    from mmdet.datasets import CocoDataset
    return [dict(id=i, name=name) for i, name in zip(CATEGORY_IDS, CocoDataset.METAINFO['classes'], strict=True)]


def blob(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Corners (24, 2) of a random shape; about as many small, medium and large ones as in COCO."""
    radius = np.exp(rng.uniform(np.log(5), np.log(min(width, height) / 2)))
    centre = rng.uniform((0, 0), (width, height))
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    around = np.stack([np.cos(angle), np.sin(angle)], 1) * radius * rng.uniform(0.5, 1, (24, 1))
    return np.clip(centre + around, 0, (width, height))


def encode(corners: np.ndarray, image: dict) -> dict:
    """The mask of a polygon as compressed RLE."""
    return mask_utils.frPyObjects([corners.ravel().tolist()], image['height'], image['width'])[0]


def uncompressed(rle: dict) -> dict:
    """RLE with its runs as a list, as COCO's file has its crowds."""
    flat = mask_utils.decode(rle).ravel(order='F')
    ends = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
    return dict(size=list(rle['size']), counts=np.diff([0, *ends, flat.size]).tolist())


def truth(images: int, seed: int = 0, size: tuple[int, int] = (400, 641), per_image: float = 7,
          crowds: float = 1 / 30) -> dict:
    """COCO's annotation dict: polygons, a fraction of crowds as RLE, some images without any object."""
    rng, found = np.random.default_rng(seed), dict(images=[], annotations=[], categories=categories())
    for i in range(images):
        width, height = rng.integers(*size, 2).tolist()
        image = dict(id=10 * i + 7, file_name=f'{i:012}.jpg', width=width, height=height)
        found['images'].append(image)
        for _ in range(rng.poisson(per_image) if i % 20 else 0):
            corners, crowd = blob(rng, width, height), int(rng.random() < crowds)
            rle = encode(corners, image)
            if mask_utils.area(rle):
                found['annotations'].append(dict(
                    id=len(found['annotations']) + 1, image_id=image['id'], iscrowd=crowd,
                    category_id=int(rng.choice(CATEGORY_IDS)), area=float(mask_utils.area(rle)),
                    bbox=mask_utils.toBbox(rle).tolist(),
                    segmentation=uncompressed(rle) if crowd else [np.round(corners, 2).ravel().tolist()]))
    return found


def predictions(found: dict, seed: int = 1, keys: tuple[str, ...] = ('bbox', 'segmentation')) -> list[dict]:
    """COCO's result list: jittered truth, some of it twice or of another class, and as much that is not there.

    Scores have two digits, so many are equal. Every tenth image has no prediction.
    """
    rng, results = np.random.default_rng(seed), []
    objects = {image['id']: [] for image in found['images']}
    for annotation in found['annotations']:
        objects[annotation['image_id']].append(annotation)
    for image in (image for i, image in enumerate(found['images']) if i % 10):
        shapes = []
        for true in objects[image['id']]:
            x, y, w, h = true['bbox']
            corners = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]]) if true['iscrowd'] else \
                np.reshape(true['segmentation'], (-1, 2))
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                moved = corners + rng.normal(0, 0.04, corners.shape) * (w, h)
                shapes.append((moved, true['category_id'] if rng.random() < 0.9 else rng.choice(CATEGORY_IDS)))
        shapes += [(blob(rng, image['width'], image['height']), rng.choice(CATEGORY_IDS)) for _ in range(len(shapes))]
        for corners, category in shapes:
            rle = encode(np.clip(corners, 0, (image['width'], image['height'])), image)
            result = dict(bbox=mask_utils.toBbox(rle).tolist(),
                          segmentation=dict(rle, counts=rle['counts'].decode()))
            results.append(dict(image_id=image['id'], category_id=int(category), score=round(rng.random(), 2),
                                **{key: result[key] for key in keys}))
    return results


def write_coco(root: Path, images: int = 6, **changes) -> None:
    """COCO's layout under `root`: noisy pictures of 64 to 160 pixels, `images` for training, validation and test-dev.

    The first picture of each has no object; those of test-dev have no annotations.
    """
    (root / 'annotations').mkdir(parents=True)
    for seed, split in enumerate(('train2017', 'val2017', 'test2017')):
        found = truth(images, seed, **dict(size=(64, 161), per_image=4, crowds=0.2) | changes)
        (root / split).mkdir()
        if split == 'test2017':
            del found['annotations']
        name = 'image_info_test-dev2017' if split == 'test2017' else f'instances_{split}'
        (root / f'annotations/{name}.json').write_text(json.dumps(found))
        for image in found['images']:
            pixels = np.random.default_rng(image['id']).integers(0, 256, (image['height'], image['width'], 3))
            Image.fromarray(pixels.astype(np.uint8)).save(root / split / image['file_name'])
