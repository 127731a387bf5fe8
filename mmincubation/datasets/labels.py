"""Rules for the label pictures of semantic segmentation, and the count of their classes."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterable

import numpy as np
from mmengine.dataset import BaseDataset
from PIL import Image

from mmincubation.errors import ConfigError

from .files import is_hidden

IGNORED = 255  # where a data set does not say which label is ignored
IMAGES = ('.jpg', '.jpeg', '.png', '.tif', '.tiff', '.bmp', '.webp')
LOOK = 32  # label pictures that a run reads before its first step
BOTH = ('img_path', 'seg_map_path')
REMEDY = 'write one byte a pixel, the class number'


class Fault(ConfigError):
    """A broken rule: `what` is the same for all samples that break it, `detail` is of one of them.

    `keys` say which files of the sample are meant.
    """

    def __init__(self, what: str, detail: str = '', keys: tuple[str, ...] = ('seg_map_path', )):
        super().__init__(f'{what}: {detail}' if detail else what)
        self.what, self.detail, self.keys = what, detail, keys


class LabelRules:
    """Check the label map of a sample, `gt_seg_map`, as soon as it is read.

    `classes` is their number, None if unknown. Allowed are classes, and the label that the data set ignores.

    Raises:
        Fault: a rule is broken.
    """

    def __init__(self, dataset: BaseDataset, classes: int | None):
        self.classes, self.ignored = classes, getattr(dataset, 'ignore_index', IGNORED)
        self.reduced = ' after reduce_zero_label' * bool(dataset.reduce_zero_label)

    def __call__(self, sample: dict) -> None:
        labels, shape = sample['gt_seg_map'], tuple(sample['ori_shape'][:2])
        if 1 in shape and labels.size == shape[0] * shape[1]:  # mmseg squeezes a side of one pixel away
            labels = sample['gt_seg_map'] = labels.reshape(shape)
        self.accept(labels, sample.get('seg_map_path') or '')
        if labels.shape != shape:
            raise Fault('labels of another size than their image',
                        f'labels of shape {labels.shape}, its image has {shape}', BOTH)

    def accept(self, labels: np.ndarray, path: str) -> None:
        """Refuse labels that are no classes.

        Raises:
            Fault: the file does not store class numbers as they are, or has other ones.
        """
        require_exact(path)
        if labels.ndim == 3:
            raise Fault(f'a label picture with {labels.shape[2]} channels, colours or transparency; {REMEDY}')
        if self.classes and ((labels < 0) | (labels >= self.classes) & (labels != self.ignored)).any():
            wrong = sorted({*np.unique(labels).tolist()} - {*range(self.classes), self.ignored})
            raise Fault(f'label values that are no class (0..{self.classes - 1}, {self.ignored} ignored)',
                        ', '.join(map(str, wrong[:3])) + ', ...' * (len(wrong) > 3) + self.reduced)


def require_exact(path: str) -> None:
    """Refuse a label picture whose numbers are not what mmseg reads.

    Raises:
        Fault: the file is JPEG or lossy WebP, whatever its name; or has values above 255, of which the lower byte is
            read: 257 would become class 1; or is grey of 2 or 4 bits, which are read as shades; or has a palette whose
            greys are other numbers.
    """
    if '://' in path or not os.path.isfile(path):
        return
    with open(path, 'rb') as file:
        head = file.read(26)
    if head[:3] == b'\xff\xd8\xff' or head[8:16] == b'WEBPVP8 ':
        raise Fault('a label picture that is stored with loss (JPEG), which changes labels; draw or export it again as '
                    'PNG')
    png, (bits, colours) = head[1:4] == b'PNG', (*head[24:], 0, 0)[:2]
    if png and bits in (1, 8) and colours != 3 or not png and not head.startswith((b'II*\0', b'MM\0*', b'BM', b'GIF')):
        return  # one byte a pixel is the rule
    with Image.open(path) as image:
        if image.info.get('compression') == 'jpeg':
            raise Fault('a label picture that is stored with loss (JPEG), which changes labels; export it again')
        bits = bits if png else getattr(image, 'tag_v2', {}).get(258, (8, ))[0]
        if image.mode == 'L' and bits in (2, 4):
            raise Fault(f'a grey label picture of {bits} bits, which is read as shades from 0 to 255; {REMEDY}')
        if image.mode == 'P':
            _require_numbers(image)
            return
        values = np.asarray(image)
    if values.dtype not in (np.uint8, bool) and (values != values.astype(np.uint8)).any():
        raise Fault(f'a label picture of 16 bits or more, with values above 255; {REMEDY}')


def _require_numbers(image: Image.Image) -> None:
    """Refuse a palette of greys in which a pixel's number is another than its grey; 0 and 1 may be black and white.

    A palette of one colour says nothing about numbers.
    """
    colours = _palette(image)
    greys = colours[:, 0].astype(int)
    if (colours != colours[:, :1]).any() or _is_ramp(colours) or (colours == colours[0]).all():
        return
    used = np.unique(image)
    wrong = [i for i in used[used < len(greys)] if greys[i] != i]
    if wrong and not ({*used.tolist()} <= {0, 1, IGNORED} and greys[0] == 0 and greys[1] == 255):
        raise Fault('a label picture with a palette of greys that are other numbers; write it without a palette, one '
                    'byte a pixel', f'{wrong[0]} is grey {greys[wrong[0]]}')


def _is_ramp(colours: np.ndarray) -> bool:
    """Return whether each number has the grey of this number: such a palette is as good as none."""
    return (colours == np.arange(len(colours))[:, None]).all()


def _palette(image: Image.Image) -> np.ndarray:
    """Return the colours (N, 3) of a picture with a palette; of PNG without decoding it."""
    mode, colours = image.palette.getdata()
    return np.frombuffer(colours if mode == 'RGB' else bytes(image.getpalette()), np.uint8).reshape(-1, 3)


def colour_conflict(paths: Iterable[str], ignored: int) -> str | None:
    """Return in words that the palettes of two label pictures give one number different colours; None if none do.

    Only numbers that a pixel has count, but not the `ignored` one. It is a fault of the data set: either of the two may
    be the wrong one.
    """
    seen: dict[int, tuple[tuple, str]] = {}
    for path in paths:
        for number, colour in _colours_used(path, ignored):
            other, first = seen.setdefault(number, (colour, path))
            if other != colour:
                return (f'{first} and {path} have palettes that give {number} different colours, {other} and {colour}, '
                        'so it cannot be one class in both; write one byte a pixel, the same class number in all')
    return None


def _colours_used(path: str, ignored: int) -> list[tuple[int, tuple]]:
    """Return (number, colour) of each number that a pixel of a picture with a palette has, but the `ignored` one."""
    try:
        with Image.open(path) as image:
            if image.mode != 'P':
                return []
            colours = _palette(image)
            used = [] if _is_ramp(colours) else np.unique(image).tolist()
            return [(i, tuple(colours[i].tolist())) for i in used if i < len(colours) and i != ignored]
    except Exception:  # damaged files are told when their turn comes
        return []


def listed(dataset: BaseDataset) -> Callable[[], list[dict]]:
    """Return a `load_data_list` for mmseg's data set, without what is no image.

    That are blank lines of `ann_file`, hidden files, and label pictures beside their images whose names end with
    `img_suffix` too, as `1_mask.png` beside `1.png`.
    """
    load, folder = dataset.load_data_list, dataset.data_prefix.get('img_path') or ''

    def found() -> list[dict]:
        infos = load()
        if dataset.ann_file and os.path.isfile(dataset.ann_file):
            return [info for info in infos if os.path.basename(info['img_path']) != dataset.img_suffix]
        maps = _maps_beside(dataset, [info['img_path'] for info in infos])
        return [info for info in infos if not is_hidden(info['img_path'], folder) and info['img_path'] not in maps]

    return found


def _maps_beside(dataset: BaseDataset, paths: list[str]) -> set[str]:
    """Return the paths that label pictures of these images have, if they lie in one folder with the images.

    Without a folder of label pictures, as with --format-only, it may be that of the images.
    """
    images, labels = (dataset.data_prefix.get(key) for key in ('img_path', 'seg_map_path'))
    apart = labels is not None and os.path.abspath(labels) != os.path.abspath(images or '')
    if apart or dataset.seg_map_suffix == dataset.img_suffix:
        return set()
    return {path.removesuffix(dataset.img_suffix) + dataset.seg_map_suffix for path in paths}


def left_out(dataset: BaseDataset) -> str | None:
    """Return in words which images of a folder mmseg's data set leaves out because of their suffix; None if none."""
    folder, labels = (dataset.data_prefix.get(key) or '' for key in ('img_path', 'seg_map_path'))
    if dataset.ann_file and not os.path.isdir(dataset.ann_file) or not os.path.isdir(folder):
        return None
    together = bool(labels) and os.path.abspath(labels) == os.path.abspath(folder)
    own = (dataset.img_suffix, dataset.seg_map_suffix) if together else (dataset.img_suffix, )
    found = sorted(os.path.join(where, name) for where, _, names in os.walk(folder) for name in names
                   if name.lower().endswith(IMAGES) and not name.endswith(own)
                   and not is_hidden(os.path.join(where, name), folder))
    more = ', ...' * (len(found) > 1)
    return f'{len(found)} images that do not end with img_suffix={dataset.img_suffix!r} are left out: ' \
           f'{found[0]}{more}; rename them, or correct img_suffix' if found else None


def no_sample(dataset) -> str:
    """Return in words that a data set has no sample; of mmseg's, where it looked for which files."""
    said = 'there is no sample in it'
    if not hasattr(dataset, 'img_suffix') or not isinstance(dataset.data_prefix, dict):
        return said
    if dataset.ann_file and not os.path.isdir(dataset.ann_file):
        return f'{said}: {dataset.ann_file} names none'
    rest = left_out(dataset)
    return f'{said}: no file in {dataset.data_prefix.get("img_path") or os.curdir} ends with ' \
           f'img_suffix={dataset.img_suffix!r}{"; " * bool(rest)}{rest or ""}'


def pixels_of(labels: np.ndarray, classes: int, ignored: int) -> np.ndarray:
    """Return the number of pixels of each class (classes,) in a label map of any shape."""
    return np.bincount(labels[(labels != ignored) & (labels < classes)].ravel(), minlength=classes)


def unlearnable(dataset: BaseDataset, pixels: np.ndarray, seen: int) -> str | None:
    """Return in words that `seen` label pictures hold a single class, or none; None if they hold more.

    `pixels` (classes,) counts the pixels of each class in them.
    """
    there, names = np.flatnonzero(pixels), dataset.metainfo['classes']
    if len(there) > 1 or len(pixels) < 2:
        return None
    zero = ', and 0 in the file by reduce_zero_label' * bool(dataset.reduce_zero_label)
    said = f'class {names[there[0]]!r} or ignored' if len(there) else 'ignored'
    return (f'in {seen} of {len(dataset)} label pictures every pixel is {said} ({getattr(dataset, "ignore_index", 255)}'
            f'{zero}); no other class is there to be learnt: give each pixel its class number, 0 to {len(names) - 1}')


def require_classes(dataset: BaseDataset) -> str | None:
    """Read some label pictures; return in words that only a single class is in them, None if there are more.

    Raises:
        ConfigError: it is so in all of the data set, or palettes of two pictures differ.
    """
    classes = len(dataset.metainfo.get('classes') or ())
    indices = np.unique(np.linspace(0, len(dataset) - 1, LOOK).round().astype(int))
    paths = (dataset.get_data_info(int(i)).get('seg_map_path') or '' for i in indices)
    if what := colour_conflict(paths, getattr(dataset, 'ignore_index', IGNORED)):
        raise ConfigError(what)
    seen = [found for found in (_pixels(dataset, int(i), classes) for i in indices) if found is not None]
    if not seen or not (what := unlearnable(dataset, sum(seen), len(seen))):
        return None
    if len(seen) == len(dataset):
        raise ConfigError(what)
    return what


def _pixels(dataset: BaseDataset, index: int, classes: int) -> np.ndarray | None:
    """Return the pixels of each class of one sample; None if it cannot be read, which is told when its turn comes."""
    sample = dataset.get_data_info(index)
    try:
        for step in loaders(dataset.pipeline.transforms):
            sample = step(sample)
        LabelRules(dataset, classes).accept(sample['gt_seg_map'], sample['seg_map_path'])
        return pixels_of(sample['gt_seg_map'], classes, getattr(dataset, 'ignore_index', IGNORED))
    except Exception:  # damaged files raise anything
        return None


def loaders(steps: Iterable[Callable]) -> list[Callable]:
    """Return the transforms that read label pictures."""
    from mmcv.transforms import LoadAnnotations
    return [step for step in steps if isinstance(step, LoadAnnotations)]
