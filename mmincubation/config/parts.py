"""Parts of one folder of classes: what validation measures must be none of the images of training."""
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmincubation.datasets.classes import class_of
from mmincubation.datasets.classification import ClsDataset
from mmincubation.datasets.subsets import part_of
from mmincubation.errors import ConfigError

from .classes import data_sets


def part_problems(cfg: Config) -> Iterator[str]:
    """Validation sets that share images with training: a fraction lies in each larger one.

    To validate on the very images of training is meant, to see whether a model can learn them.
    """
    for place, images, part in _parts(cfg, 'val'):
        for source, others, trained in _parts(cfg, 'train'):
            if images == others and part != trained and max(part[0], trained[0]) < min(part[1], trained[1]):
                edge = trained[1] if trained[1] < 1 else .9
                yield f'{place} and {source} share images of {images[1]}, of which they take {_said(part)} and ' \
                      f'{_said(trained)}: train on fraction={edge:g}, and give fraction=({edge:g}, 1) here'


def _parts(cfg: Config, kind: str) -> Iterator[tuple[str, tuple[type, Path], tuple[float, float]]]:
    """Yield (place, (class, folder), (begin, end)) of the classified images of `train` or `val`."""
    for place, dataset in data_sets(cfg, kind):
        try:
            cls = class_of(dataset, cfg.get('default_scope') or 'mmengine')
            if issubclass(cls, ClsDataset):
                yield place, (cls, Path(dataset['root']).resolve()), part_of(dataset.get('fraction', 1))
        except (ConfigError, KeyError, TypeError, ImportError):  # its own problem
            continue


def _said(part: tuple[float, float]) -> str:
    return f'{part[0]:g} to {part[1]:g}'
