"""Write the demo data to disk: an image folder for classification, scenes for detection and segmentation."""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as mask_utils

from .compose import SCENE_CANVAS, Scene, classification_image, scene
from .sources import SPLITS

FORMAT = 2  # raise it when the same parameters give other files, so that older data are not mistaken for these
MANIFEST = 'manifest.json'
CLASSES = tuple(str(digit) for digit in range(10))
SEG_CLASSES = ('background', *CLASSES)
CLS, SCENES = 0, 1  # first word of an image's random stream after the seed


def image_rng(seed: int, part: int, split: str, index: int) -> np.random.Generator:
    """Return the random generator of one image.

    It depends on these four values only, so the order and the number of images do not matter.
    """
    return np.random.default_rng([seed, part, SPLITS.index(split), index])


def write_classification(root: Path, split: str, count: int, seed: int) -> None:
    """Write ``count`` images in torchvision's ImageFolder layout, ``root/split/{0..9}/NNNNN.png``, labels in turn."""
    for label in CLASSES:
        (root / split / label).mkdir(parents=True)
    for index in range(count):
        label = index % len(CLASSES)
        image = classification_image(image_rng(seed, CLS, split, index), split, label)
        _write_png(root / split / CLASSES[label] / f'{index:05d}.png', image)


def write_scenes(root: Path, split: str, count: int, seed: int) -> None:
    """Write ``count`` scenes: ``root/split/img``, ``root/split/seg`` and ``root/annotations/instances_split.json``."""
    for kind in ('img', 'seg'):
        (root / split / kind).mkdir(parents=True)
    coco = {
        'images': [],
        'annotations': [],
        'categories': [{'id': i + 1, 'name': name} for i, name in enumerate(CLASSES)],
    }
    for index in range(count):
        name = f'{index:05d}.png'
        drawn = scene(image_rng(seed, SCENES, split, index), split)
        _write_png(root / split / 'img' / name, drawn.image)
        _write_png(root / split / 'seg' / name, drawn.seg)
        coco['images'].append({'id': index, 'file_name': name, 'height': SCENE_CANVAS, 'width': SCENE_CANVAS})
        coco['annotations'] += _annotations(drawn, index, first_id=len(coco['annotations']) + 1)
    (root / 'annotations').mkdir(exist_ok=True)
    (root / 'annotations' / f'instances_{split}.json').write_text(json.dumps(coco))


def _annotations(drawn: Scene, image_id: int, first_id: int) -> list[dict]:
    records = []
    for offset, (label, mask) in enumerate(zip(drawn.labels, drawn.masks, strict=True)):
        rle = mask_utils.encode(np.asfortranarray(mask, dtype=np.uint8))
        records.append(
            {
                'id': first_id + offset,
                'image_id': image_id,
                'category_id': label + 1,
                'bbox': mask_utils.toBbox(rle).tolist(),
                'area': int(mask.sum()),
                'iscrowd': 0,
                'segmentation': {'size': rle['size'], 'counts': rle['counts'].decode('ascii')},
            }
        )
    return records


def _write_png(path: Path, image: np.ndarray) -> None:
    pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    if not cv2.imwrite(str(path), pixels):
        raise OSError(f'could not write {path}: is the disk full?')


def folder_digest(root: str | Path) -> str:
    """Return the SHA-256 over the relative path and content of every file below ``root`` but the manifest."""
    root, total = Path(root), hashlib.sha256()
    for path in sorted(p for p in root.rglob('*') if p.is_file() and p.name != MANIFEST):
        name = path.relative_to(root).as_posix()
        total.update(f'{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n'.encode())
    return total.hexdigest()


def write_demo_data(
    root: str | Path = 'data/demo',
    seed: int = 0,
    cls_train: int = 8000,
    cls_val: int = 1000,
    scenes_train: int = 1500,
    scenes_val: int = 150,
) -> bool:
    """Write the demo data to ``root`` atomically: the folder appears complete or not at all.

    The counts are images of each split. A complete folder with the same parameters is kept.

    Returns:
        True if the data were written, False if they were there already.

    Raises:
        FileExistsError: ``root`` holds something else: other parameters, damaged files or foreign ones.
    """
    root = Path(root).resolve()
    counts = {'cls': {'train': cls_train, 'val': cls_val}, 'scenes': {'train': scenes_train, 'val': scenes_val}}
    parameters = {'format': FORMAT, 'seed': seed, 'counts': counts}
    root.parent.mkdir(parents=True, exist_ok=True)
    with _locked(root.with_name(f'.{root.name}.lock')):
        if root.is_file() or (root.is_dir() and any(root.iterdir())):
            _require_same_data(root, parameters)
            return False
        partial = root.with_name(f'.{root.name}.partial')
        if partial.exists():  # an earlier attempt was killed
            shutil.rmtree(partial)
        _write_all(partial, parameters)
        os.replace(partial, root)
    return True


def _write_all(root: Path, parameters: dict) -> None:
    for split in SPLITS:
        write_classification(root / 'cls', split, parameters['counts']['cls'][split], parameters['seed'])
        write_scenes(root / 'scenes', split, parameters['counts']['scenes'][split], parameters['seed'])
    manifest = {'parameters': parameters, 'sha256': folder_digest(root)}
    (root / MANIFEST).write_text(json.dumps(manifest, indent=2) + '\n')


def _require_same_data(root: Path, parameters: dict) -> None:
    remedy = 'move it away or choose another root'
    try:
        manifest = json.loads((root / MANIFEST).read_text())
        found, digest = manifest['parameters'], manifest['sha256']
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileExistsError(f'{root} exists but holds no demo data ({MANIFEST} unreadable): {remedy}') from error
    if found != parameters:
        raise FileExistsError(f'{root} holds demo data made with {found}, not {parameters}: {remedy}')
    if folder_digest(root) != digest:
        raise FileExistsError(f'{root} holds demo data that were changed after writing: {remedy}')


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock the file for this process; the system frees the lock of a killed one."""
    with open(path, 'w') as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
