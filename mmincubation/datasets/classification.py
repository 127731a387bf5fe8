"""Classification data in the layouts people have: folders of classes, and Arrow folders of Hugging Face."""
import hashlib
import io
import json
import os
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from PIL import Image
from torch.utils.data import Dataset
from torchvision import datasets
from torchvision.io import decode_jpeg
from torchvision.transforms import v2

from mmincubation.errors import ConfigError
from mmincubation.registry import DATASETS

INSTALL = 'python -m pip install --no-deps -r requirements.txt'


def balanced_subset(labels: np.ndarray, fraction: float) -> np.ndarray:
    """Indices, in order, of `fraction` of the images of each class (rounded, at least one).

    Which ones is fixed and the same everywhere: the first of a permutation that is drawn per class from the class
    number alone. So a smaller fraction is a subset of a larger one. How the paper chose its 50 % and 25 % of ImageNet,
    it does not say.

    Raises:
        ConfigError: `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f'fraction={fraction}: give a number above 0 and not above 1')
    if fraction == 1:
        return np.arange(len(labels))
    kept = []
    for label in np.unique(labels):
        images = np.flatnonzero(labels == label)
        order = np.random.default_rng(label).permutation(len(images))
        kept.append(images[order[:max(1, round(fraction * len(images)))]])
    return np.sort(np.concatenate(kept))


class ClsDataset(Dataset):
    """Images with one class each; a sample is `inputs` (3, H, W) uint8, `labels`, the class number, and
    `index`, which `name` takes.

    `labels` (N,) are class numbers, `classes` the names of all classes. `pipeline` names transforms of PIL images by
    their import path, e.g. `dict(type='torchvision.transforms.RandomCrop', size=32)`; one that says `takes_pixels` gets
    what was read, without the detour. `fraction` is described in `balanced_subset`.

    Subclasses give `read(i)`, image i in RGB, (3, H, W) uint8, and `name(i)`, to call it in an error.
    """

    def __init__(self, labels: np.ndarray, classes: tuple[str, ...], pipeline: list[dict], fraction: float):
        self.labels, self.classes = labels, classes
        self.kept = balanced_subset(labels, fraction)
        steps = [TRANSFORMS.build(t) for t in pipeline]
        if steps and not getattr(steps[0], 'takes_pixels', False):
            steps.insert(0, v2.ToPILImage())
        self.transform = v2.Compose([*steps, v2.PILToTensor()])

    def read(self, index: int) -> torch.Tensor:
        """The image in RGB, (3, H, W) uint8."""
        raise NotImplementedError

    def name(self, index: int) -> str:
        """Where the image is from."""
        raise NotImplementedError

    @property
    def metainfo(self) -> dict:
        """Class names, for visualisers and checkpoints."""
        return dict(classes=self.classes)

    def fingerprint(self) -> str:
        """Hex digest of classes and labels, which a missing image or another choice of images changes."""
        return hashlib.sha256(repr(self.classes).encode() + self.labels[self.kept].astype('<i8').tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.kept)

    def __getitem__(self, index: int) -> dict:
        index = int(self.kept[index])
        try:
            image = self.read(index)
        except ConfigError:
            raise
        except Exception as error:  # damaged files raise anything
            raise ConfigError(f'{self.name(index)} cannot be read as an image: {error}') from error
        return dict(inputs=planes(self.transform(image)), labels=int(self.labels[index]), index=index)


def planes(image: torch.Tensor) -> torch.Tensor:
    """The same (3, H, W), one whole colour after the other in memory, as a batch of them is: stacking copies blocks."""
    pixels = image.permute(1, 2, 0)
    if image.is_contiguous() or not pixels.is_contiguous():
        return image.contiguous()
    pixels = pixels.numpy()
    found = np.empty(image.shape, pixels.dtype)
    cv2.split(pixels, list(found))  # into its three parts; torch and NumPy would copy value by value
    return torch.from_numpy(found)


def read_rgb(file) -> torch.Tensor:
    """A path or binary file to an RGB image (3, H, W) uint8, colours last in memory.

    Orientation tags are ignored, as torchvision's ImageFolder does. Of 16 bits the upper 8 are kept, as OpenCV does;
    Pillow would make white of all values above 255. JPEG is decoded by torchvision, which gives Pillow's pixels, but
    without its four bytes a pixel; what that refuses, Pillow reads or says why it cannot.

    Raises:
        OSError: no image, or one of 32 bits, of whose values none is known to be white.
    """
    with Image.open(file) as image:  # the header alone
        if image.format == 'JPEG' and image.mode in ('L', 'RGB'):
            try:
                return _decode_jpeg(image)
            except RuntimeError:
                pass
        if image.mode.startswith('I;16'):
            image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
        elif image.mode in ('I', 'F'):
            raise OSError(f'pixels of 32 bits (mode {image.mode}) have no known range')
        return torch.from_numpy(np.array(image.convert('RGB'))).permute(2, 0, 1)


def _decode_jpeg(image: Image.Image) -> torch.Tensor:
    image.fp.seek(0)
    return decode_jpeg(torch.frombuffer(bytearray(image.fp.read()), dtype=torch.uint8)).expand(3, -1, -1)


@DATASETS.register_module()
class ImageFolder(ClsDataset):
    """Images in one folder per class under `root`, as ImageNet is usually unpacked; see `ClsDataset`.

    Classes are numbered in the order of their folders' names.

    Raises:
        ConfigError: `root` has no folders of images.
    """

    def __init__(self, root: str, pipeline: list[dict] = (), fraction: float = 1.):
        try:
            found = datasets.ImageFolder(root)
        except FileNotFoundError as error:
            raise ConfigError(f'{root} holds no images in folders of classes: {error}') from error
        # Bytes in one array: a list of a million names would be copied into every worker, bit by bit, as it is read.
        self.files = np.array([os.fsencode(path) for path, _ in found.samples])
        super().__init__(np.array(found.targets), tuple(found.classes), pipeline, fraction)

    def read(self, index: int) -> torch.Tensor:
        """The image in RGB, (3, H, W) uint8."""
        return read_rgb(self.name(index))

    def name(self, index: int) -> str:
        """Its path."""
        return os.fsdecode(self.files[index])


@DATASETS.register_module()
class HFImages(ClsDataset):
    """A split that Hugging Face `datasets` wrote to the folder `root` with `save_to_disk`; see `ClsDataset`.

    `image` and `label` name its columns. Arrow files are mapped into memory: any sample can be read at once, and
    workers share the pages. Nothing is downloaded.

    Raises:
        ConfigError: the package is missing, or `root` is no such folder or has no such columns.
    """

    def __init__(self, root: str, pipeline: list[dict] = (), fraction: float = 1., image: str = 'image',
                 label: str = 'label'):
        self.root, self.column = root, image
        rows = _open_split(root)
        _require_columns(root, rows, image, label)
        classes = tuple(rows.features[label].names)
        labels = rows.with_format('numpy', columns=[label])[:][label]
        self.rows = rows.with_format('arrow', columns=[image])
        super().__init__(labels, classes, pipeline, fraction)

    def read(self, index: int) -> torch.Tensor:
        """The image in RGB, (3, H, W) uint8."""
        content = self.rows[index][self.column][0].as_py()
        if content['bytes'] is None:  # save_to_disk stores them all; a name could be that of any file here
            raise ConfigError(f'{self.name(index)} names a file, {content["path"]!r}, instead of holding the image; '
                              'write the split again with save_to_disk')
        return read_rgb(io.BytesIO(content['bytes']))

    def name(self, index: int) -> str:
        """Its row."""
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
    """Raise ConfigError if the split's state names files that are not in its own folder."""
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
            raise ConfigError(f'{root} has no {kind.__name__} column {column!r}; it has {", ".join(known) or "none"}')
