"""ADE20K in small: a data set in its folder layout."""
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = ((49, 67), (58, 41), (64, 64), (37, 90), (71, 53))  # (height, width)


def write_ade(root, train: int = 4, val: int = 5, wrong_label: int | None = None) -> Path:
    """Images of odd sizes (.jpg) and label maps (.png, 0 = nothing, 1..150 = classes) as in ADEChallengeData2016.

    Each picture is striped, its stripes are of few classes, one of them 0 and one 150. `wrong_label` puts that value
    into the first training map.
    """
    root = Path(root)
    for split, count in (('training', train), ('validation', val)):
        for kind in ('images', 'annotations'):
            (root / kind / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            rng = np.random.default_rng([count, i])
            height, width = SIZES[i % len(SIZES)]
            labels = np.resize([0, 150, *rng.integers(1, 151, 4)], -(-height // 8))[:, None]
            labels = labels.repeat(8, 0)[:height].repeat(width, 1).astype(np.uint8)
            pixels = (labels[..., None] * [1, 2, 3] + rng.integers(0, 30, (height, width, 3))).astype(np.uint8)
            if wrong_label is not None and (split, i) == ('training', 0):
                labels[0, 0] = wrong_label
            name = f'ADE_{"train" if split == "training" else "val"}_{i + 1:08d}'
            Image.fromarray(pixels).save(root / 'images' / split / f'{name}.jpg')
            Image.fromarray(labels).save(root / 'annotations' / split / f'{name}.png')
    return root
