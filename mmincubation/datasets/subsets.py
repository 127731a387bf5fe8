"""A part of the images of each class."""
import numpy as np

from mmincubation.errors import ConfigError

Fraction = float | tuple[float, float]


def balanced_subset(labels: np.ndarray, fraction: Fraction) -> np.ndarray:
    """Return the increasing indices of a `fraction` of the images of each class (rounded, at least one).

    The choice is always the same: the first images of a permutation that is drawn for each class from its number. So a
    smaller fraction is a subset of a larger one. A pair is a part: `(0.9, 1)` are the images that 0.9 leaves out. The
    paper does not say how it chose its parts of ImageNet.

    Raises:
        ConfigError: `fraction` is not in (0, 1], or no increasing pair in [0, 1].
    """
    begin, end = fraction if isinstance(fraction, list | tuple) and len(fraction) == 2 else (0, fraction)
    if not all(isinstance(share, int | float) for share in (begin, end)) or not 0 <= begin < end <= 1:
        raise ConfigError(f'fraction={fraction}: give a number above 0 and not above 1, or a part such as (0.9, 1)')
    if (begin, end) == (0, 1):  # labels that are no class are named later
        return np.arange(len(labels))
    kept = []
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        order = np.random.default_rng(label).permutation(len(images))
        first, last = round(begin * len(images)), round(end * len(images))
        kept.append(images[order[min(first, len(images) - 1):max(first + 1, last)]])
    return np.sort(np.concatenate(kept))
