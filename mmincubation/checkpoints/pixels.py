"""The mean and the std by which the images were normalised that a file's weights were trained on, where it says so."""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmincubation.errors import CheckpointError

from .files import read_tensors
from .stated import json_beside

IMAGENET = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375])
PREPROCESSOR = 'preprocessor_config.json'  # of transformers


@dataclass(frozen=True)
class Pixels:
    """Mean and std of RGB, for pixels in 0..255, as the configs have them; `source` is the place that says it."""
    source: str
    mean: list[float]
    std: list[float]


def stated_pixels(path: str | Path) -> Pixels | None:
    """Return what a file of weights states, else config.json (timm) or preprocessor_config.json beside it.

    None if nothing is stated, or the file cannot be read, which is said where it is loaded.
    """
    try:
        if own := own_pixels(path):
            return own
        place, config = json_beside(path)
        if isinstance(config, dict) and 'architecture' in config:
            return of_timm(f'{place}: pretrained_cfg', config.get('pretrained_cfg'))
        place, config = json_beside(path, PREPROCESSOR)
    except CheckpointError:
        return None
    if not isinstance(config, dict) or not config.get('do_normalize', True) or not config.get('do_rescale', True):
        return None
    return _scaled(place, config.get('image_mean'), config.get('image_std'))


def own_pixels(path: str | Path) -> Pixels | None:
    """Return what the header of a weight file, or the `meta` of a run's checkpoint, states; None if nothing.

    Raises:
        CheckpointError: the file cannot be read.
    """
    content, header = read_tensors(path)
    meta = content.get('meta')
    trained = meta.get('pixels') if isinstance(meta, Mapping) else None
    own = header if 'mean' in header else trained if isinstance(trained, Mapping) else {}
    return _scaled(str(path), own.get('mean'), own.get('std'), 1) if own else None


def near(a: Sequence[float], b: Sequence[float]) -> bool:
    """Return whether two means or stds are the same to half a grey value, as rounding makes them."""
    return len(a) == len(b) and all(abs(x - y) < .5 for x, y in zip(a, b, strict=True))


def near_imagenet(mean: Sequence[float], std: Sequence[float]) -> bool:
    """Return whether they are ImageNet's, in the order of RGB."""
    return near(mean, IMAGENET[0]) and near(std, IMAGENET[1])


def of_timm(source: str, config) -> Pixels | None:
    """Return what timm's `pretrained_cfg` states."""
    return _scaled(source, config.get('mean'), config.get('std')) if isinstance(config, Mapping) else None


def _scaled(source: str, mean, std, scale: float = 255) -> Pixels | None:
    """Return three numbers each, times `scale`; None for anything else."""
    for values in (mean, std):
        if not isinstance(values, list | tuple) or len(values) != 3 or not all(
                isinstance(value, int | float) for value in values):
            return None
    return Pixels(source, *([round(scale * value, 4) for value in values] for values in (mean, std)))
