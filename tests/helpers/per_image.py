"""Contents of per-image files, made up: squares that a detector finds or not, and areas of a segmentor."""
import gzip
import json
from pathlib import Path

import numpy as np

HEAD = dict(format='mmincubation per image', version=1)
IOUS = np.linspace(.5, .95, 10).tolist()
SIDE = 60  # of a square, in an image of 200 x 200


def detection(finds: float, images: int = 40, seed: int = 0, max_dets: tuple = (100, 300, 1000), junk: int = 1) -> dict:
    """Two classes, up to four squares an image; the detector finds each with this probability.

    The truth is the same for all `finds` and seeds. Every image has `junk` false squares besides.
    """
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed + 1)
    truth = dict(image=[], label=[], bbox=[], area=[], iscrowd=[])
    results = dict(image=[], label=[], bbox=[], area=[], score=[])
    for image in range(images):
        for place in range(fixed.integers(5)):
            label, side = int(fixed.integers(2)), SIDE if place else 20
            box = [100. * (place % 2), 100. * (place // 2), float(side), float(side)]
            add(truth, image, label, box, iscrowd=int(fixed.random() < 0.1))
            if rng.random() < finds:
                add(results, image, label, [box[0] + rng.normal(0, 5), *box[1:]], score=float(rng.random()))
        for _ in range(junk):
            add(results, image, int(rng.integers(2)), [140., 140., 50., 50.], score=float(rng.random()))
    return dict(HEAD, task='detection', classes=['cat', 'dog'], images=[[f'{i}.jpg', 200, 200] for i in range(images)],
                iou_thrs=list(IOUS), max_dets=list(max_dets), truth=truth, results=dict(bbox=results))


def add(columns: dict, image: int, label: int, box: list[float], **more) -> None:
    values = dict(image=image, label=label, bbox=[float(side) for side in box], area=box[2] * box[3], **more)
    for key, value in values.items():
        columns[key].append(value)


def segmentation(right: float, images: int = 40, seed: int = 0) -> dict:
    """Three classes; of each image's pixels the segmentor has this share right. The truth is always the same."""
    fixed, rng = np.random.default_rng(7), np.random.default_rng(seed + 1)
    areas = []
    for _ in range(images):
        truth = fixed.integers(0, 2000, 3) * (fixed.random(3) < 0.8)
        hit = rng.binomial(truth, np.clip(right + rng.normal(0, 0.1, 3), 0, 1))
        wrong = np.roll(truth - hit, 1)
        rows = np.stack([hit, hit + wrong, truth], 1).tolist()
        areas.append([[i, *row] for i, row in enumerate(rows) if any(row)])
    return dict(HEAD, task='segmentation', classes=['sky', 'road', 'car'], images=[f'{i}.png' for i in range(images)],
                areas=areas)


def write(path: Path, content: dict) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(json.dumps(content).encode(), mtime=0))
    return path
