"""Read the real images behind the demo data: handwritten digits and colour photographs that PyPI wheels ship."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_digits

SPLITS = ('train', 'val')
# Every fifth digit of each class, and the right quarter of each photo, belong to val.
VAL_DIGIT_STRIDE = 5
TRAIN_WIDTH = 0.75
# Read straight from the installed wheels: `skimage.data.*` would try a download where a file is absent.
PHOTO_FILES = (
    ('sklearn', 'datasets/images/china.jpg'),
    ('sklearn', 'datasets/images/flower.jpg'),
    ('skimage', 'data/astronaut.png'),
    ('skimage', 'data/chelsea.png'),
    ('skimage', 'data/coffee.png'),
    ('skimage', 'data/motorcycle_left.png'),
    ('skimage', 'data/rocket.jpg'),
)


def _require_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f'unknown split {split!r}: choose one of {", ".join(SPLITS)}')


def digit_indices(split: str) -> np.ndarray:
    """Return the sorted rows of ``sklearn.datasets.load_digits()`` that belong to a split; splits are disjoint."""
    _require_split(split)
    target = load_digits().target
    rank = np.empty(len(target), dtype=int)  # 0, 1, 2, ... among the digits of the same class
    for label in range(10):
        rows = np.flatnonzero(target == label)
        rank[rows] = np.arange(len(rows))
    is_val = rank % VAL_DIGIT_STRIDE == VAL_DIGIT_STRIDE - 1
    return np.flatnonzero(is_val == (split == 'val'))


@cache
def digits(split: str) -> tuple[np.ndarray, ...]:
    """Return the handwritten digits of a split, grouped by label.

    Returns:
        Ten arrays, the one at position ``d`` holding the digits ``d`` as float32 ``(n, 8, 8)``, ink in 0..1.
    """
    data, rows = load_digits(), digit_indices(split)
    ink = (data.images[rows] / 16).astype(np.float32)
    return tuple(ink[data.target[rows] == label] for label in range(10))


def photo_columns(width: int, split: str) -> tuple[int, int]:
    """Return the first and one-past-last pixel column of a split's region in a photo of ``width`` pixels."""
    _require_split(split)
    border = round(width * TRAIN_WIDTH)
    return (0, border) if split == 'train' else (border, width)


@cache
def photos(split: str) -> tuple[np.ndarray, ...]:
    """Return the split's region of every photograph, uint8 RGB ``(h, w, 3)``.

    Raises:
        FileNotFoundError: An installed wheel does not contain a photograph.
    """
    regions = []
    for package, name in PHOTO_FILES:
        image = _read_photo(package, name)
        first, last = photo_columns(image.shape[1], split)
        regions.append(image[:, first:last])
    return tuple(regions)


def _read_photo(package: str, name: str) -> np.ndarray:
    path = Path(find_spec(package).origin).parent / name
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise FileNotFoundError(f'no readable photo {path}: install the versions pinned in requirements.txt')
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
