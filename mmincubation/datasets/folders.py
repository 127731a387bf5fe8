"""List the images in folders of classes, and say what beside them is left out."""
import os

from torchvision import datasets

from mmincubation.errors import ConfigError

from .files import is_hidden

SPLITS = {
    'train', 'training', 'trainval', 'val', 'valid', 'validation', 'dev', 'eval', 'evaluation', 'test', 'testing'}


class _Folders(datasets.ImageFolder):

    def find_classes(self, directory: str) -> tuple[list[str], dict[str, int]]:
        found = class_folders(directory)
        return found, {name: i for i, name in enumerate(found)}


def class_folders(root: str) -> list[str]:
    """Return the names of the folders in `root`, sorted.

    Raises:
        ConfigError: there is none.
    """
    if not root:  # else it would be the working directory
        raise ConfigError(f'root={root!r}: give the folder of the class folders')
    try:
        found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith('.'))
    except OSError as error:
        raise ConfigError(f'{root} cannot be read: {error.strerror}') from error
    if not found:
        raise ConfigError(f'{root} holds no images in folders of classes: lay them out as root/class/image.jpg '
                          '(docs/guides/data.md)')
    return found


def images_in(root: str) -> tuple[list[str], list[int], tuple[str, ...], str | None]:
    """Return paths and class numbers of the images in folders of classes, the classes, and what is left out in words.

    Hidden files, and all in hidden folders, are no images, and are not said to be left out.

    Raises:
        ConfigError: there are no folders, one without an image, or splits in the place of classes.
    """
    others: list[str] = []
    is_image = datasets.folder.is_image_file
    found = _Folders(root, allow_empty=True, is_valid_file=lambda path: not is_hidden(path, root) and (
        is_image(path) or others.append(path)))
    beside = [entry.path for entry in os.scandir(root)
              if is_image(entry.name) and not entry.name.startswith('.') and entry.is_file()]
    left_out = '; '.join(_left_out(root, others, 'whose names are none of images')
                         + _left_out(root, beside, 'which lie beside the folders of classes')) or None
    if empty := sorted({*range(len(found.classes))} - {*found.targets}):
        names = ', '.join(found.classes[i] for i in empty[:3]) + ', ...' * (len(empty) > 3)
        raise ConfigError(f'{root}: {len(empty)} class folders without an image ({names}); fill or remove '
                          f'them{left_out and f" ({left_out})" or ""}')
    if {name.lower() for name in found.classes} <= SPLITS:
        split = max(found.classes, key=lambda name: name.lower().startswith('train'))
        raise ConfigError(f'{root} holds {", ".join(found.classes)}, which are no classes: give root={root}/{split}')
    return [path for path, _ in found.samples], found.targets, tuple(found.classes), left_out


def _left_out(root: str, paths: list[str], why: str) -> list[str]:
    return [f'{root}: {len(paths)} files are left out, {why}: {min(paths)}'] if paths else []
