"""Parts of one folder of classes: what validation or a test measures must be none of the images of training."""
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from mmincubation.datasets.classes import class_of
from mmincubation.datasets.classification import ClsDataset
from mmincubation.datasets.subsets import part_of
from mmincubation.errors import ConfigError

from .classes import data_sets
from .sections import kinds_of

WHOLE = (0, 1)


def part_problems(cfg: Config, mode: str) -> Iterator[str]:
    """Data sets of validation or test that share images with those of training: a fraction lies in each larger one.

    To train and validate on all of one folder is a smoke test, and no mistake in a number.
    """
    for kind in {*kinds_of(cfg, mode)} - {'train'}:
        for place, images, part in _parts(cfg, kind):
            for source, others, trained in _parts(cfg, 'train'):
                shared = max(part[0], trained[0]) < min(part[1], trained[1])
                if images == others and shared and not part == trained == WHOLE:
                    edge = trained[1] if trained[1] < 1 else .9
                    yield f'{place} and {source} share images of {images[1]}, of which they take {_said(part)} and ' \
                          f'{_said(trained)}: train on fraction={edge:g}, and give fraction=({edge:g}, 1) here'


def _parts(cfg: Config, kind: str) -> Iterator[tuple[str, tuple[type, Path], tuple[float, float]]]:
    """Yield (place, (class, folder), (begin, end)) of the classified images of `train`, `val` or `test`."""
    for place, dataset in data_sets(cfg, kind):
        try:
            cls = class_of(dataset, cfg.get('default_scope') or 'mmengine')
            if issubclass(cls, ClsDataset):
                yield place, (cls, Path(dataset['root']).resolve()), part_of(dataset.get('fraction', 1))
        except (ConfigError, KeyError, TypeError, ImportError):  # its own problem
            continue


def _said(part: tuple[float, float]) -> str:
    return f'{part[0]:g} to {part[1]:g}'
