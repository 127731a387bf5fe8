"""Check semantic segmentation in the layout of ADE20K: an image and a label picture of the same name."""
import os
from pathlib import Path

import numpy as np
from PIL import Image

from mmincubation.datasets.files import decode_image, image_size
from mmincubation.datasets.rules import IGNORED

from .folders import compare_count
from .layouts import DatasetCheck, DatasetSummary, register_checker
from .sampling import files_below


@register_checker('ADE20KDataset', 'BaseSegDataset')
def report_masks(check: DatasetCheck) -> DatasetSummary:
    """Report images and label pictures without a partner; of the sampled pairs also wrong sizes, modes and values."""
    images, labels, names = _pairs(check)
    if check.classes is not None:
        compare_count(check, len(check.classes), 'classes of the data set')
    seen, words = check.sampling.inspect(names, lambda name: list(_faults(check, images(name), labels(name))))
    for _, found in seen:
        for what, remedy, example in found:
            check.problem(what, remedy, example)
    return DatasetSummary(len(names), f'{images("")}: {len(names):,} pairs of image and label; read {words}')


def _pairs(check: DatasetCheck) -> tuple:
    """Return functions from a name without suffix to the paths of image and label, and the names that have both."""
    options = check.options
    root, prefix = options.get('data_root') or '', options['data_prefix']
    folder, label_folder = (os.path.join(root, prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
    suffixes = options['img_suffix'], options['seg_map_suffix']
    have, labelled = (_names(f, s) for f, s in zip((folder, label_folder), suffixes, strict=True))
    wanted = sorted(have) if not options.get('ann_file') else _listed(os.path.join(root, options['ann_file']))
    for name in wanted:
        if name not in have:
            check.problem('images that ann_file lists are missing', 'copy them, or correct the list', name)
        elif name not in labelled:
            check.problem('images without a label picture', f'put it into {label_folder}, or remove the image',
                          os.path.join(folder, name + suffixes[0]))
    for name in sorted(labelled - have):
        check.problem('label pictures without an image', f'put it into {folder}, or remove the label picture',
                      os.path.join(label_folder, name + suffixes[1]))
    both = [name for name in wanted if name in have and name in labelled]
    if not both:
        check.problem(f'no pair of *{suffixes[0]} in {folder} and *{suffixes[1]} in {label_folder}',
                      'correct data_prefix, img_suffix or seg_map_suffix')
    return (lambda name: os.path.join(folder, name and name + suffixes[0]),
            lambda name: os.path.join(label_folder, name + suffixes[1]), both)


def _names(folder: str, suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in files_below(folder) if name.endswith(suffix)}


def _listed(path: str) -> list[str]:
    return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]


def _faults(check: DatasetCheck, image: str, label: str):
    """Yield (what, remedy, example) for each fault of one pair."""
    size, picture = image_size(image), decode_image(label)
    again = 'copy or unpack it again'
    if isinstance(size, str):
        yield f'{size}s', again, image
    if isinstance(picture, str):
        yield f'label pictures: {picture}', again, label
        return
    if not isinstance(size, str) and picture.size != size:
        yield ('label pictures of another size than their image', 'take the label that belongs to the image',
               f'{label}: {_by(picture.size)}, image {_by(size)}')
    # Pixels of other modes are no class numbers, so their values are not compared.
    if picture.mode not in ('L', 'P'):
        yield ('label pictures that are not 8-bit single-channel (mode L or P)',
               'convert them: one byte a pixel, the class number', f'{label}: mode {picture.mode}')
        return
    if strange := _strange(check, picture):
        yield (f'label values that are no class ({_range(check)})',
               'correct num_classes or reduce_zero_label, or the pictures', f'{label}: {strange}')


def _strange(check: DatasetCheck, picture: Image.Image) -> list[int]:
    """Return the values of a label picture that are neither a class nor ignored.

    With reduce_zero_label the classes begin at 1, and 0 is ignored.
    """
    if check.num_classes is None:
        return []
    values = np.unique(np.asarray(picture))
    first, last = _limits(check)
    return [int(v) for v in values if not first <= v <= last and v != IGNORED]


def _limits(check: DatasetCheck) -> tuple[int, int]:
    # With reduce_zero_label the values in the file are one above the class.
    reduced = bool(check.options.get('reduce_zero_label'))
    return 0, check.num_classes - 1 + reduced


def _range(check: DatasetCheck) -> str:
    first, last = _limits(check)
    zero = ' with 0 ignored' if check.options.get('reduce_zero_label') else ''
    return f'{first}..{last}{zero}, {IGNORED} ignored, by num_classes={check.num_classes}'


def _by(size: tuple[int, int]) -> str:
    return 'x'.join(map(str, size))
