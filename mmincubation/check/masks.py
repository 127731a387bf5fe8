"""Semantic segmentation in the layout of ADE20K: an image and a label picture of the same name."""
import os
from pathlib import Path

import numpy as np
from PIL import Image

from mmincubation.datasets.files import decode_image, image_size
from mmincubation.datasets.rules import IGNORED

from .folders import compare_count
from .layouts import Given, Seen, checks
from .sampling import files_below


@checks('ADE20KDataset', 'BaseSegDataset')
def check_masks(given: Given) -> Seen:
    """Pairs, and for those looked at: size, mode and values of the label picture."""
    images, labels, names = _pairs(given)
    if given.classes is not None:
        compare_count(given, len(given.classes), 'classes of the data set')
    seen, words = given.look.at(names, lambda name: list(_faults(given, images(name), labels(name))))
    for _, found in seen:
        for what, remedy, example in found:
            given.problem(what, remedy, example)
    return Seen(len(names), f'{images("")}: {len(names):,} pairs of image and label; read {words}')


def _pairs(given: Given) -> tuple:
    """Functions from a name (without suffix) to the image's and to the label's path, and the names that have both."""
    options = given.options
    root, prefix = options.get('data_root') or '', options['data_prefix']
    folder, label_folder = (os.path.join(root, prefix.get(key) or '') for key in ('img_path', 'seg_map_path'))
    suffixes = options['img_suffix'], options['seg_map_suffix']
    have, labelled = (_names(f, s) for f, s in zip((folder, label_folder), suffixes, strict=True))
    wanted = sorted(have) if not options.get('ann_file') else _listed(os.path.join(root, options['ann_file']))
    for name in wanted:
        if name not in have:
            given.problem('images that ann_file lists are missing', 'copy them, or correct the list', name)
        elif name not in labelled:
            given.problem('images without a label picture', f'put it into {label_folder}, or remove the image',
                          os.path.join(folder, name + suffixes[0]))
    for name in sorted(labelled - have):
        given.problem('label pictures without an image', f'put it into {folder}, or remove the label picture',
                      os.path.join(label_folder, name + suffixes[1]))
    both = [name for name in wanted if name in have and name in labelled]
    if not both:
        given.problem(f'no pair of *{suffixes[0]} in {folder} and *{suffixes[1]} in {label_folder}',
                      'correct data_prefix, img_suffix or seg_map_suffix')
    return (lambda name: os.path.join(folder, name and name + suffixes[0]),
            lambda name: os.path.join(label_folder, name + suffixes[1]), both)


def _names(folder: str, suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in files_below(folder) if name.endswith(suffix)}


def _listed(path: str) -> list[str]:
    return [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]


def _faults(given: Given, image: str, label: str):
    """(what, remedy, example) of one pair."""
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
    if picture.mode not in ('L', 'P'):
        yield ('label pictures that are not 8-bit single-channel (mode L or P)',
               'convert them: one byte a pixel, the class number', f'{label}: mode {picture.mode}')
        return
    if strange := _strange(given, picture):
        yield (f'label values that are no class ({_range(given)})',
               'correct num_classes or reduce_zero_label, or the pictures', f'{label}: {strange}')


def _strange(given: Given, picture: Image.Image) -> list[int]:
    """Values that are neither a class nor ignored; with reduce_zero_label the classes begin at 1, and 0 is ignored."""
    if given.num_classes is None:
        return []
    values = np.unique(np.asarray(picture))
    first, last = _limits(given)
    return [int(v) for v in values if not first <= v <= last and v != IGNORED]


def _limits(given: Given) -> tuple[int, int]:
    reduced = bool(given.options.get('reduce_zero_label'))
    return 0, given.num_classes - 1 + reduced


def _range(given: Given) -> str:
    first, last = _limits(given)
    zero = ' with 0 ignored' if given.options.get('reduce_zero_label') else ''
    return f'{first}..{last}{zero}, {IGNORED} ignored, by num_classes={given.num_classes}'


def _by(size: tuple[int, int]) -> str:
    return 'x'.join(map(str, size))
