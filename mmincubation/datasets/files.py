"""Read an image, or say in two words why it cannot be read; the names and folders of images."""
import os
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from mmincubation.registry import leaf_datasets

ORIENTATION = 0x0112  # EXIF's tag; its values: mirrored or upside down, and turned by 90 degrees
IN_PLACE, ON_ITS_SIDE = (2, 3, 4), (5, 6, 7, 8)
Image.MAX_IMAGE_PIXELS = None  # Pillow's limit guards web services; the data are the user's own, also gigapixel ones


def decode_image(path: str | Path) -> str | Image.Image:
    """Return the decoded image, or in words why it cannot be read."""
    try:
        if not os.path.getsize(path):
            return 'empty file'
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        return missing(path)
    except Exception as error:  # damaged images raise anything
        return 'truncated image' if 'truncated' in str(error) else 'unreadable image'


def missing(path: str | Path) -> str:
    """Return in words that a file does not exist, and why if its name shows that."""
    written, stem = str(path).replace('\\', '/'), Path(path).with_suffix('')
    if Path(written).is_file():
        return f'missing file, but there is {written}: write / for \\ in its name'
    if stem.suffix and stem.is_file():
        return f'missing file, but there is {stem}: the suffix {Path(path).suffix} is added to the names in ann_file'
    return 'missing file'


def is_hidden(path: str, folder: str) -> bool:
    """Return whether a file below a folder, or a folder between the two, has a name that begins with a dot.

    The path must begin as the folder is written.
    """
    return f'{os.sep}.' in os.sep + path.removeprefix(folder)


def image_fault(path: str | Path) -> str | None:
    """Return in words why an image cannot be decoded; None if it can."""
    found = decode_image(path)
    return found if isinstance(found, str) else None


def image_size(path: str | Path) -> str | tuple[int, int]:
    """Return (width, height) as OpenCV shows an image, from its header, or in words why it cannot be read."""
    try:
        if not os.path.getsize(path):
            return 'empty file'
        with Image.open(path) as image:
            return image.size[::-1] if _orientation(image) in ON_ITS_SIDE else image.size
    except FileNotFoundError:
        return missing(path)
    except Exception:
        return 'unreadable image'


def turned_in_place(path: str | Path) -> bool:
    """Return whether OpenCV turns or mirrors an image into one of the same size."""
    try:
        with Image.open(path) as image:
            tag = _orientation(image)
            return tag in IN_PLACE or tag in ON_ITS_SIDE and image.width == image.height
    except Exception:
        return False


def _orientation(image: Image.Image) -> int | None:
    """Return an image's EXIF tag, not that of XMP, which OpenCV does not read."""
    if not (found := image.info.get('exif')):
        return None
    exif = Image.Exif()
    exif.load(found)
    return exif.get(ORIENTATION)


def image_names(dataset, indices: Iterable[int]) -> list[str]:
    """Return the names of classified images by the `index` of their samples, also of a data set inside of wrappers.

    A sample of several data sets does not say of which it is: then all images of this index are named.
    """
    while not hasattr(dataset, 'name') and hasattr(dataset, 'dataset'):
        dataset = dataset.dataset
    if hasattr(dataset, 'name'):
        return [dataset.name(index) for index in indices if index < len(dataset.labels)]
    parts = getattr(dataset, 'datasets', ())
    return [' or '.join(name for part in parts for name in image_names(part, [index])) for index in indices]


def common_folder(dataset: dict) -> str:
    """Return the folder that holds all images of a data set's config; of several data sets, the one above all."""
    folders = []
    for _, leaf in leaf_datasets(dataset):
        prefix = leaf.get('data_prefix') if isinstance(leaf.get('data_prefix'), dict) else {}
        folders.append(os.path.abspath(os.path.join(
            leaf.get('data_root') or leaf.get('root') or '', prefix.get('img_path') or prefix.get('img') or '')))
    return os.path.commonpath(folders) if folders else os.getcwd()


def path_below(folder: str, path: str) -> str:
    """Return a file's path relative to `folder`; of a file elsewhere its whole path, without the root.

    So two files never have one name, and none leads out of the folder that it is joined to.
    """
    path = os.path.abspath(path)
    inside = os.path.relpath(path, folder)
    return os.path.splitdrive(path)[1].lstrip(os.sep) if inside.split(os.sep)[0] == os.pardir else inside
