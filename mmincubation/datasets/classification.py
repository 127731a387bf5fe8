"""Classification data in folders of classes, or in Arrow folders of Hugging Face."""
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from mmincubation.errors import ConfigError
from mmincubation.registry import DATASETS

from .folders import class_folders, images_in
from .images import image_transform, planes, read_rgb
from .subsets import Fraction, balanced_subset

INSTALL = 'python -m pip install --no-deps -r requirements.txt'


def numbered_by(order: tuple[str, ...], labels: np.ndarray, classes: tuple[str, ...]) -> tuple[np.ndarray, tuple]:
    """Return labels (N,) and all class names, numbered by `order`; a label that is no class becomes -1.

    Raises:
        ConfigError: a class is not in `order`.
    """
    if strange := [name for name in classes if name not in order]:
        raise ConfigError(f'{strange[0]!r} is a class of the data, but none of the {len(order)} in `classes`')
    new = np.array([order.index(name) for name in classes], labels.dtype)
    known = (labels >= 0) & (labels < len(classes))
    return np.where(known, new[labels * known], -1), tuple(order)


class ClsDataset(Dataset):
    """Images with one class each. A sample has `inputs` (3, H, W) uint8, the class number `labels`, and `index`.

    `labels` (N,) are class numbers, `classes` the names of all classes. With `order`, names in another order, classes
    are numbered by it. `pipeline` names transforms of PIL images by their import path, e.g.
    `dict(type='torchvision.transforms.RandomCrop', size=32)`. A first transform with `takes_pixels` gets the uint8
    tensor that `read` returns. `balanced_subset` describes `fraction`. `in_memory` keeps each image decoded once it was
    read: for small data, with `num_workers=0` or workers that persist.

    Subclasses implement `read(index)`, `stored(index)` and `name(index)`, which take the `index` of a sample, and
    `names(settings)`.

    Raises:
        ConfigError: a class is not in `order`; of a sample: it cannot be read, or has other values than uint8.
    """

    def __init__(self, labels: np.ndarray, classes: tuple[str, ...], pipeline: list[dict],
                 fraction: Fraction, order: tuple[str, ...] | None = None, in_memory: bool = False):
        self.labels, self.classes, self.fraction = labels, classes, fraction
        if order is None:
            self.kept = balanced_subset(labels, fraction)
        else:
            self.number_by(order)
        self.transform = image_transform(pipeline)
        self.draws = bool(pipeline)  # else the loops need not seed the generators for each sample
        self.held: dict[int, torch.Tensor] | None = {} if in_memory else None

    @classmethod
    def names(cls, settings: dict) -> tuple[str, ...]:
        """Return the class names of a data set of these settings, without reading its images."""
        raise NotImplementedError

    def read(self, index: int) -> torch.Tensor:
        """Return the image in RGB, (3, H, W) uint8."""
        raise NotImplementedError

    def stored(self, index: int) -> bytes:
        """Return the encoded image, as it is stored."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Return the name of the image in error messages."""
        raise NotImplementedError

    def number_by(self, order: tuple[str, ...]) -> None:
        """Number the classes by the names in `order`, and choose the part of the images again.

        Raises:
            ConfigError: a class is not in `order`, or no image is in the part.
        """
        self.labels, self.classes = numbered_by(order, self.labels, self.classes)
        self.kept = balanced_subset(self.labels, self.fraction)

    def full_init(self) -> None:
        """Do nothing: all has been read. mmengine's wrappers, such as RepeatDataset, call it."""

    def get_cat_ids(self, index: int) -> list[int]:
        """Return the class of a sample, for ClassBalancedDataset."""
        return [int(self.labels[self.kept[index]])]

    @property
    def metainfo(self) -> dict:
        """The class names, for visualisers and checkpoints."""
        return dict(classes=self.classes)

    def fingerprint(self) -> str:
        """Return the SHA-256 of classes and labels in hex, which changes with the choice of images."""
        return hashlib.sha256(repr(self.classes).encode() + self.labels[self.kept].astype('<i8').tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> dict:
        index = int(self.kept[index])
        try:
            image = self.read(index) if self.held is None else self._held(index)
        except ConfigError:
            raise
        except Exception as error:  # damaged files raise anything
            raise ConfigError(f'{self.name(index)} cannot be read as an image: {error}') from error
        pixels = self.transform(image)
        if pixels.dtype != torch.uint8:
            raise ConfigError(f'{self.name(index)} has pixels of {pixels.dtype} after the pipeline; the model takes 0 '
                              'to 255 and normalises them itself: give create_transform normalize=False, and leave '
                              'out steps that make floats')
        return dict(inputs=planes(pixels), labels=int(self.labels[index]), index=index)

    def _held(self, index: int) -> torch.Tensor:
        if index not in self.held:
            self.held[index] = planes(self.read(index))
        return self.held[index]


@DATASETS.register_module()
class ImageFolder(ClsDataset):
    """Images under `root` in one folder per class, as ImageNet is usually unpacked; see `ClsDataset`.

    Classes are numbered in the order of their folders' names, or as in `classes`: the tools give the names of training
    to validation and test. Hidden files and folders, whose names begin with a dot, are left out.

    Raises:
        ConfigError: `root` has no folders of images, an empty one, or one that is not in `classes`.
    """

    def __init__(self, root: str, pipeline: list[dict] = (), fraction: Fraction = 1.,
                 classes: tuple[str, ...] | None = None, in_memory: bool = False):
        self.root = root
        paths, numbers, names, self.left_out = images_in(root)
        # Bytes in one array: workers would gradually copy a list, as reading a string changes its reference count.
        self.files = np.array([os.fsencode(path) for path in paths])
        super().__init__(np.array(numbers, np.int64), names, pipeline, fraction, classes, in_memory)

    @classmethod
    def names(cls, settings: dict) -> tuple[str, ...]:
        """Return the names of the folders, or `classes`."""
        return tuple(settings.get('classes') or class_folders(settings['root']))

    def read(self, index: int) -> torch.Tensor:
        """Return the image in RGB, (3, H, W) uint8."""
        return read_rgb(self.name(index))

    def stored(self, index: int) -> bytes:
        """Return the bytes of the file."""
        return Path(self.name(index)).read_bytes()

    def name(self, index: int) -> str:
        """Return the path of the image."""
        return os.fsdecode(self.files[index])


@DATASETS.register_module()
class HFImages(ClsDataset):
    """A split that Hugging Face `datasets` wrote to the folder `root` with `save_to_disk`; see `ClsDataset`.

    `image` and `label` are the names of its columns, `classes` is as for `ImageFolder`. Arrow files are mapped into
    memory, so any sample can be read directly and workers share the memory. Nothing is downloaded.

    Raises:
        ConfigError: the package is missing, or `root` is not such a folder, or lacks a column.
    """

    def __init__(self, root: str, pipeline: list[dict] = (), fraction: Fraction = 1., image: str = 'image',
                 label: str = 'label', classes: tuple[str, ...] | None = None, in_memory: bool = False):
        self.root, self.column = root, image
        rows = _open_split(root)
        _require_columns(root, rows, image, label)
        names = tuple(rows.features[label].names)
        labels = rows.with_format('numpy', columns=[label])[:][label]
        labels = np.nan_to_num(labels, nan=-1).astype(np.int64)  # a null makes floats; it is no class, as -1
        self.rows = rows.with_format('arrow', columns=[image])
        super().__init__(labels, names, pipeline, fraction, classes, in_memory)

    @classmethod
    def names(cls, settings: dict) -> tuple[str, ...]:
        """Return the names in the label column, or `classes`."""
        label = settings.get('label', 'label')
        return tuple(settings.get('classes') or _open_split(settings['root']).features[label].names)

    def read(self, index: int) -> torch.Tensor:
        """Return the image in RGB, (3, H, W) uint8."""
        return read_rgb(io.BytesIO(self.stored(index)))

    def stored(self, index: int) -> bytes:
        """Return the encoded image of the row.

        Raises:
            ConfigError: the row has no image, or the name of a file instead of it.
        """
        content = self.rows[index][self.column][0].as_py()
        if content is None:
            raise ConfigError(f'{self.name(index)} has no image (null)')
        if content['bytes'] is None:  # save_to_disk stores all images; a name could be that of any file
            raise ConfigError(f'{self.name(index)} names a file, {content["path"]!r}, instead of holding the image; '
                              'write the split again with save_to_disk')
        return content['bytes']

    def name(self, index: int) -> str:
        """Return the folder and the row of the image."""
        return f'{self.root}, row {index}'


def _open_split(root: str):
    try:
        from datasets import Dataset as Split
        from datasets import load_from_disk
    except ImportError as error:
        raise ConfigError(f'HFImages needs the package datasets ({error}): `{INSTALL}`') from error
    _require_own_files(root)
    try:
        rows = load_from_disk(root)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f'{root} was not written by save_to_disk of Hugging Face datasets; '
                          'docs/tasks/imagenet.md has the command') from error
    if not isinstance(rows, Split):
        raise ConfigError(f'{root} holds the splits {", ".join(sorted(rows))}: give the folder of one of them')
    return rows


def _require_own_files(root: str) -> None:
    """Refuse a split whose state names files outside of its folder."""
    try:
        names = [part['filename'] for part in json.loads(Path(root, 'state.json').read_bytes())['_data_files']]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return  # load_from_disk says what is missing
    if outside := [name for name in names if name != os.path.basename(str(name))]:
        raise ConfigError(f'{root}/state.json names {outside[0]!r}, which is not in this folder: refused; write the '
                          'split again with save_to_disk')


def _require_columns(root: str, rows, image: str, label: str) -> None:
    from datasets import ClassLabel
    from datasets import Image as ImageColumn
    for column, kind in ((image, ImageColumn), (label, ClassLabel)):
        if not isinstance(rows.features.get(column), kind):
            known = [name for name, feature in rows.features.items() if isinstance(feature, kind)]
            raise ConfigError(f'{root} has no {kind.__name__} column {column!r}; it has {", ".join(known) or "none"}'
                              f'{_how_to_make(kind.__name__, column) if column in rows.features else ""}')


def _how_to_make(kind: str, column: str) -> str:
    how = f'cast_column({column!r}, datasets.Image())' if kind == 'Image' else f'class_encode_column({column!r})'
    return f'; {column!r} becomes one by rows.{how} before save_to_disk'
