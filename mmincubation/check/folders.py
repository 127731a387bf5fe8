"""Images in one folder per class: ImageNet as it is usually unpacked."""
import os
from pathlib import Path

from mmincubation.datasets.files import image_fault

from .layouts import Given, Seen, checks
from .sampling import SUFFIXES


@checks('ImageFolder')
def check_folders(given: Given) -> Seen:
    """Number of class folders, empty ones, and images that cannot be decoded."""
    root = Path(given.options['root'])
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    fraction, used = given.options.get('fraction', 1.), 0
    images = []
    for name in classes:
        found = [str(root / name / file) for file in _images(root / name)]
        images += found
        used += max(1, round(fraction * len(found))) if found else 0  # as balanced_subset
        if not found:
            given.problem('class folders without an image', 'fill them, or unpack the archive again', str(root / name))
    compare_count(given, len(classes), f'class folders in {root}')
    if not images:
        given.problem(f'no image in class folders of {root}',
                      'lay them out as root/class/image.jpg (docs/guides/data.md)')
    seen, words = given.look.at(images, image_fault)
    for path, wrong in seen:
        if wrong:
            given.problem(f'{wrong}s', 'copy or download them again', path)
    part = '' if used == len(images) else f' ({used:,} used)'
    return Seen(used, f'{root}: {len(images):,} images{part} in {len(classes):,} classes; decoded {words}',
                tuple(classes))


def compare_count(given: Given, count: int, what: str) -> None:
    """The number of classes in the data is the model's."""
    if given.num_classes is not None and count != given.num_classes:
        given.problem(f'{count} {what}, the model has num_classes={given.num_classes}',
                      'set num_classes of the model, or give the folder of this data set')


def _images(folder: Path) -> list[str]:
    return sorted(str(Path(where, name).relative_to(folder)) for where, _, names in os.walk(folder, followlinks=True)
                  for name in names if name.lower().endswith(SUFFIXES))
