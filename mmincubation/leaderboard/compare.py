"""Compare two checkpoints image by image, on one detection or segmentation set."""
from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from mmincubation.result import ResultError

from .bootstrap import drawn_precisions, draws_of
from .per_image import KINDS, read_per_image

DRAWS, SEED, FEW = 1000, 0, 20
WORDS = dict(bbox='box', segm='mask')
# Of hotcoco, and how mmdet calls them in result.json.
PRECISIONS = dict(AP='mAP', AP50='mAP_50', AP75='mAP_75', APs='mAP_s', APm='mAP_m', APl='mAP_l')
ERRORS = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss', 'FP', 'FN')


def compare_files(path_a: str | Path, path_b: str | Path) -> dict[str, Any]:
    """Compare two per-image files, or those of two folders.

    Returns:
        `task`, `images` and `classes` (how many), `draws`; `metrics`: a list of dicts with `name`, `a`, `b`,
        `difference` (B - A), `low` and `high` (its 95 % interval), and `supported`; `tables` by title: lists of dicts
        with `name`, `a`, `b` and `difference`; `notes`: lines to be read with them. Numbers are in percent, differences
        in points; None is what could not be measured.

    Raises:
        ResultError: a file cannot be read, or the two are not about the same; one line.
    """
    a, b = read_per_image(path_a), read_per_image(path_b)
    if difference := what_differs(a, b):
        raise ResultError(f'{path_a} and {path_b} cannot be compared: {difference}')
    metrics, tables = (_detection if a['task'] == 'detection' else _segmentation)(a, b)
    return dict(task=a['task'], images=len(a['images']), classes=len(a['classes']), draws=DRAWS, metrics=metrics,
                tables=tables, notes=list(_notes(a, b)))


def what_differs(a: dict, b: dict) -> str:
    """Return in words why two contents are not about the same images, classes and truth; '' if they are."""
    if a['task'] != b['task']:
        return f'A is of {a["task"]}, B of {b["task"]}'
    for key in ('classes', 'images'):
        if len(a[key]) != len(b[key]):
            return f'{len(a[key])} {key} in A, {len(b[key])} in B'
        for i, (ours, theirs) in enumerate(zip(a[key], b[key], strict=True)):
            if ours != theirs:
                return f'the {key} differ: number {i + 1} is {ours!r:.80} in A, {theirs!r:.80} in B'
    for key in ('iou_thrs', 'max_dets'):
        if a.get(key) != b.get(key):
            return f'they were evaluated by other settings: {key} is {a[key]!r:.80} in A, {b[key]!r:.80} in B'
    return (_detection_truth if a['task'] == 'detection' else _segmentation_truth)(a, b)


def _detection_truth(a: dict, b: dict) -> str:
    if not a['results'].keys() & b['results'].keys():
        return f'A has {", ".join(a["results"])}, B has {", ".join(b["results"])}'
    ours, theirs = a['truth'], b['truth']
    if len(ours['image']) != len(theirs['image']):
        return f'the truth differs: {len(ours["image"])} objects in A, {len(theirs["image"])} in B'
    other = [key for key in ours if key in theirs and ours[key] != theirs[key]]
    return f'the truth differs: {", ".join(other)} of its objects' if other else ''


def _segmentation_truth(a: dict, b: dict) -> str:
    for name, ours, theirs in zip(a['images'], a['areas'], b['areas'], strict=True):
        if {row[0]: row[3] for row in ours if row[3]} != {row[0]: row[3] for row in theirs if row[3]}:
            return f'the truth differs: its classes have other areas in {name!r:.80}'
    return ''


def _notes(a: dict, b: dict):
    if a == b:
        yield 'A and B have the same results for every image'
    if len(a['images']) < FEW:
        yield f'only {len(a["images"])} images: an interval from fewer than {FEW} says nothing'
    if a['task'] == 'detection' and (alone := a['results'].keys() ^ b['results'].keys()):
        yield f'only one of the two has {", ".join(WORDS[kind] for kind in sorted(alone))} results'


def row(name: str, a: float | None, b: float | None) -> dict[str, Any]:
    """Return a line of a table."""
    return dict(name=name, a=a, b=b, difference=None if a is None or b is None else b - a)


def tested(name: str, a: float | None, b: float | None, drawn, images: int) -> dict[str, Any]:
    """Return a line with the interval of the differences of all draws.

    There is none for few images, or for objects that so few have that a draw can miss them all.
    """
    import numpy as np
    found, low, high = row(name, a, b), None, None
    if found['difference'] is not None and images >= FEW and not np.isnan(drawn).any():
        low, high = (float(end) for end in np.percentile(drawn, [2.5, 97.5]))
    return dict(found, low=low, high=high, supported=low is not None and (low > 0 or high < 0))


def _detection(a: dict, b: dict) -> tuple[list[dict], dict[str, list[dict]]]:
    import hotcoco
    metrics, tables = [], {}
    counts = draws_of(len(a['images']), DRAWS, SEED)
    for kind in (kind for kind in KINDS if kind in a['results'] and kind in b['results']):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'hotcoco: ')
            ours, theirs = (evaluated(content, kind) for content in (a, b))
            found = hotcoco.compare(ours, theirs)
            errors = [evaluator.tide_errors()['delta_ap'] for evaluator in (ours, theirs)]
            drawn = [drawn_precisions(evaluator, counts) for evaluator in (ours, theirs)]
        for key, name in PRECISIONS.items():
            values = (_percent(found[of][key]) for of in ('metrics_a', 'metrics_b'))
            metrics.append(tested(f'{WORDS[kind]} {name}', *values, 100 * (drawn[1][key] - drawn[0][key])[1:],
                                  len(a['images'])))
        tables[f'{WORDS[kind]} AP by class'] = [
            row(a['classes'][entry['cat_id'] - 1], _percent(entry['ap_a']), _percent(entry['ap_b']))
            for entry in sorted(found['per_category'], key=lambda entry: entry['cat_id'])]
        tables[f'{WORDS[kind]} errors (TIDE)'] = [row(name, *(100 * gains[name] for gains in errors))
                                                  for name in ERRORS]
    return metrics, tables


def _percent(value: float) -> float | None:
    return None if value == -1 else 100 * value


def evaluated(content: dict, kind: str):
    """Return hotcoco's evaluator of a content's boxes (`bbox`) or masks (`segm`), after matching."""
    import hotcoco
    images = [dict(id=i, file_name=name, width=width, height=height)
              for i, (name, width, height) in enumerate(content['images'], 1)]
    categories = [dict(id=i, name=str(i)) for i in range(1, len(content['classes']) + 1)]
    coco = [hotcoco.COCO(dict(images=images, categories=categories, annotations=_annotations(columns, images, kind)))
            for columns in (content['truth'], content['results'][kind])]
    evaluator = hotcoco.COCOeval(*coco, kind)
    evaluator.params.iou_thrs = content['iou_thrs']
    evaluator.params.max_dets = _caps(content, kind)
    evaluator.evaluate()
    return evaluator


def _caps(content: dict, kind: str) -> list[int]:
    """Return `max_dets`, or its last where no image has more results than any: the same numbers in half the time."""
    counts, caps = [0] * len(content['images']), content['max_dets']
    for image in content['results'][kind]['image']:
        counts[image] += 1
    return caps[-1:] if max(counts) <= 100 else caps  # mAP counts 100 results of an image if they are among the caps


def _annotations(columns: dict[str, list], images: list[dict], kind: str) -> list[dict]:
    keys = [key for key in ('bbox', 'area', 'score', 'iscrowd') if key in columns]
    found = [dict(dict(iscrowd=0, id=i, image_id=columns['image'][i - 1] + 1, category_id=columns['label'][i - 1] + 1),
                  **{key: columns[key][i - 1] for key in keys}) for i in range(1, len(columns['image']) + 1)]
    if kind == 'segm':
        for entry, counts in zip(found, columns['mask'], strict=True):
            image = images[entry['image_id'] - 1]
            entry['segmentation'] = dict(size=[image['height'], image['width']], counts=counts)
    return found


def _segmentation(a: dict, b: dict) -> tuple[list[dict], dict[str, list[dict]]]:
    ours, theirs = (areas_of(content) for content in (a, b))
    counts = draws_of(len(a['images']), DRAWS, SEED)
    drawn = [segmentation_means(counts @ areas) for areas in (ours, theirs)]
    metrics = [tested(name, *(_number(means[name][0]) for means in drawn), (drawn[1][name] - drawn[0][name])[1:],
                      len(a['images'])) for name in drawn[0]]
    classes = [_ious(areas.sum(1)) for areas in (ours, theirs)]
    table = [row(name, _number(x), _number(y)) for name, x, y in zip(a['classes'], *classes, strict=True)]
    return metrics, {'IoU by class': table}


def areas_of(content: dict):
    """Return (3, images, classes) of pixels: intersection, prediction and truth."""
    import numpy as np
    found = np.zeros((3, len(content['images']), len(content['classes'])))
    for i, rows in enumerate(content['areas']):
        for label, *areas in rows:
            found[:, i, label] = areas
    return found


def segmentation_means(areas) -> dict[str, Any]:
    """Return mmseg's mIoU, mAcc and aAcc in percent from areas (3, ..., classes), summed over images; shape (...)."""
    import numpy as np
    inside, _, truth = areas
    with warnings.catch_warnings(), np.errstate(all='ignore'):
        warnings.simplefilter('ignore', RuntimeWarning)  # of a mean over nothing, which is nan
        return dict(mIoU=np.nanmean(_ious(areas), -1), mAcc=100 * np.nanmean(inside / truth, -1),
                    aAcc=100 * inside.sum(-1) / truth.sum(-1))


def _ious(areas):
    import numpy as np
    inside, predicted, truth = areas
    with np.errstate(all='ignore'):
        return 100 * inside / (predicted + truth - inside)


def _number(value) -> float | None:
    return None if math.isnan(value) else float(value)
