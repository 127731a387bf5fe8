"""A part of the images of each class."""
import numpy as np

from mmincubation.errors import ConfigError

Fraction = float | tuple[float, float]


def part_of(fraction: Fraction) -> tuple[float, float]:
    """Return (begin, end) in [0, 1] of the part of each class that a `fraction` is.

    Raises:
        ConfigError: `fraction` is not in (0, 1], or no increasing pair in [0, 1].
    """
    begin, end = fraction if isinstance(fraction, list | tuple) and len(fraction) == 2 else (0, fraction)
    if not all(isinstance(share, int | float) for share in (begin, end)) or not 0 <= begin < end <= 1:
        raise ConfigError(f'fraction={fraction}: give a number above 0 and not above 1, or a part such as (0.9, 1)')
    return begin, end


def balanced_subset(labels: np.ndarray, fraction: Fraction) -> np.ndarray:
    """Return the increasing indices of a `fraction` of the images of each class (rounded, at least one).

    The choice is always the same: the first images of a permutation that is drawn for each class from its number. So a
    smaller fraction is a subset of a larger one. A pair is a part: `(0.9, 1)` are the images that 0.9 leaves out; of
    small classes there may be none. The paper does not say how it chose its parts of ImageNet.

    Raises:
        ConfigError: `fraction` is not in (0, 1], or no increasing pair in [0, 1]; no class has an image in this part.
    """
    begin, end = part_of(fraction)
    if (begin, end) == (0, 1):  # labels that are no class are named later
        return np.arange(len(labels))
    kept = [_part(np.flatnonzero(labels == label), label, begin, end) for label in np.unique(labels)]
    if not any(len(images) for images in kept):
        raise ConfigError(f'fraction={fraction}: no class has so many images that one lies in this part; take a larger '
                          'part')
    return np.sort(np.concatenate(kept))


def _part(images: np.ndarray, label: int, begin: float, end: float) -> np.ndarray:
    def edge(share: float) -> int:  # the same for two parts that meet, so that they share no image
        return max(1, round(share * len(images))) if share else 0

    seed = int(label) % 2 ** 32  # below 0 is no class, which is named later
    return images[np.random.default_rng(seed).permutation(len(images))[edge(begin):edge(end)]]
