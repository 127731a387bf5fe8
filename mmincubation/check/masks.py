"""Check semantic segmentation: an image and a label picture of the same name, as the run itself reads them."""
import os

import numpy as np
from mmengine.registry import DefaultScope

from mmincubation.datasets.checked import CheckedDataset
from mmincubation.datasets.files import turned_in_place
from mmincubation.datasets.labels import (
    IGNORED,
    Fault,
    colour_conflict,
    left_out,
    pixels_of,
    unlearnable,
)
from mmincubation.registry import kind_of

from .layouts import DatasetCheck, DatasetSummary, register_checker
from .sampling import files_below

SHOWN = 5


@register_checker('ADE20KDataset', 'BaseSegDataset')
def report_masks(check: DatasetCheck) -> DatasetSummary:
    """Report label pictures that are missing; of the sampled pairs also what the run would refuse, and the classes."""
    data = _built(check)
    if rest := left_out(data.dataset):
        check.report.warn(f'{check.place}: {rest}')
    infos = [data.get_data_info(i) for i in range(len(data))]
    for info in infos:
        if (path := info.get('seg_map_path')) and not ('://' in path or os.path.exists(path)):
            check.problem('images without a label picture', f'put it into {data.data_prefix["seg_map_path"]}, or '
                          'remove the image', info['img_path'])
    _say_unused(check, data, infos)
    there = [i for i, info in enumerate(infos) if os.path.exists(info.get('seg_map_path') or info['img_path'])]
    seen, words = check.sampling.inspect(there, lambda i: (*_look(data, i), turned_in_place(infos[i]['img_path'])))
    for _, (problem, _, _) in seen:
        if problem:
            check.problem(*problem)
    check.warn_of_turned([infos[i]['img_path'] for i, (_, _, turned) in seen if turned], len(seen))
    paths = (infos[i].get('seg_map_path') or '' for i, _ in seen)
    if what := colour_conflict(paths, getattr(data, 'ignore_index', IGNORED)):
        check.problem(what, '')
    _report_classes(check, data, [pixels for _, (_, pixels, _) in seen if pixels is not None])
    return DatasetSummary(data, f'{data.data_prefix["img_path"]}: {len(there):,} pairs of image and label; read '
                          f'{words}')


def _built(check: DatasetCheck) -> CheckedDataset:
    """Return the run's data set with the part of its pipeline that reads files."""
    steps = [step for step in check.dataset.get('pipeline') or []
             if kind_of(step).startswith('Load')]
    with DefaultScope.overwrite_default_scope(check.scope):
        return CheckedDataset(dict(check.dataset, pipeline=steps), check.place, check.num_classes)


def _say_unused(check: DatasetCheck, data: CheckedDataset, infos: list[dict]) -> None:
    """Say which label pictures belong to no image of the folder; a list of images may leave some out."""
    folder, used = data.data_prefix.get('seg_map_path'), {info.get('seg_map_path') for info in infos}
    if not folder or data.ann_file:
        return
    unused = [name for name in files_below(folder) if name.endswith(data.seg_map_suffix) and not name.startswith('.')
              and os.path.join(folder, name) not in used]
    if unused:
        check.report.say(f'{check.place}: {len(unused):,} label pictures without an image, which are not used: '
                         f'{os.path.join(folder, unused[0])}{", ..." * (len(unused) > 1)}')


def _look(data: CheckedDataset, index: int) -> tuple[tuple | None, np.ndarray | None]:
    """Return (problem, remedy, example) or None, and the pixels of each class (classes,) or None, of one pair."""
    try:
        sample = data.dataset.prepare_data(index)
    except Exception as error:  # damaged files raise anything
        path, _, what = data.describe(index, error).partition(': ')
        if isinstance(error, Fault):
            what, path = error.what, f'{path}: {error.detail}' if error.detail else path
        return (what, 'correct the files, or the settings by which they are read', path), None
    classes = len(data.metainfo.get('classes') or ())
    labels = sample.get('gt_seg_map')
    return None, None if labels is None or not classes else pixels_of(labels, classes, data.ignore_index)


def _report_classes(check: DatasetCheck, data: CheckedDataset, pixels: list[np.ndarray]) -> None:
    """Report that there is one class alone, and say which classes of training are in no sampled label picture."""
    if not pixels or not check.place.startswith('train'):
        return
    count = sum(pixels)
    if what := unlearnable(data.dataset, count, len(pixels)):
        check.problem(what, '')
    elif not count.all():
        names = [data.metainfo['classes'][i] for i in np.flatnonzero(count == 0)]
        more = ', ...' * (len(names) > SHOWN)
        check.report.say(f'{check.place}: {len(names)} of {len(count)} classes are in none of the {len(pixels):,} '
                         f'label pictures read: {", ".join(names[:SHOWN])}{more}')
