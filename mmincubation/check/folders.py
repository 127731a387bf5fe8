"""Check images in one folder for each class: ImageNet as it is usually unpacked."""
import os
from pathlib import Path

from mmincubation.datasets.files import image_fault

from .layouts import DatasetCheck, DatasetSummary, register_checker
from .sampling import SUFFIXES


@register_checker('ImageFolder')
def report_folders(check: DatasetCheck) -> DatasetSummary:
    """Report a wrong number of class folders, empty ones, and images that cannot be decoded."""
    root = Path(check.options['root'])
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    fraction, used = check.options.get('fraction', 1.), 0
    images = []
    for name in classes:
        found = [str(root / name / file) for file in _images(root / name)]
        images += found
        used += max(1, round(fraction * len(found))) if found else 0  # as balanced_subset
        if not found:
            check.problem('class folders without an image', 'fill them, or unpack the archive again', str(root / name))
    compare_count(check, len(classes), f'class folders in {root}')
    if not images:
        check.problem(f'no image in class folders of {root}',
                      'lay them out as root/class/image.jpg (docs/guides/data.md)')
    seen, words = check.sampling.inspect(images, image_fault)
    for path, wrong in seen:
        if wrong:
            check.problem(f'{wrong}s', 'copy or download them again', path)
    part = '' if used == len(images) else f' ({used:,} used)'
    return DatasetSummary(used, f'{root}: {len(images):,} images{part} in {len(classes):,} classes; decoded {words}',
                          tuple(classes))


def compare_count(check: DatasetCheck, count: int, what: str) -> None:
    """Report a number of classes in the data that differs from the model's."""
    if check.num_classes is not None and count != check.num_classes:
        check.problem(f'{count} {what}, the model has num_classes={check.num_classes}',
                      'set num_classes of the model, or give the folder of this data set')


def _images(folder: Path) -> list[str]:
    return sorted(str(Path(where, name).relative_to(folder)) for where, _, names in os.walk(folder, followlinks=True)
                  for name in names if name.lower().endswith(SUFFIXES))
