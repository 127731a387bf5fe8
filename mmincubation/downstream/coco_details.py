"""What a COCO evaluation shows beside its main numbers: AP by class, kinds of errors, and every image's results."""
from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from functools import partial

import numpy as np

from .fast_eval import FastEval

KINDS = dict(bbox='box', segm='mask')
ERRORS = ('Cls', 'Loc', 'Both', 'Dupe', 'Bkg', 'Miss', 'FP', 'FN')  # of TIDE; the last two are its sums


def details_and_evidence(evaluators: Iterable, classes: Iterable[str]) -> tuple[dict, Callable[[], dict] | None]:
    """Return the tables of evaluators that have run, and a function that makes the content of a per-image file.

    `evaluators` are COCOevals of hotcoco, pycocotools or mmdet; `classes` are named in the order of their
    `params.catIds`. Those that look at no classes (proposals) do not count: without others there is no function.
    """
    details, fast = {}, {}
    for evaluator in evaluators:
        if evaluator.params.useCats:
            kind = evaluator.params.iouType
            fast[kind] = as_fast(evaluator)
            aps = details[f'{KINDS[kind]} AP by class'] = class_aps(evaluator.eval['precision'], classes)
            measured = any(ap is not None for ap in aps.values())
            details[f'{KINDS[kind]} errors (TIDE)'] = errors(fast[kind]) if measured else dict.fromkeys(ERRORS)
    return details, _evidence(fast) if fast else None


def class_aps(precision: np.ndarray, classes: Iterable[str]) -> dict[str, float | None]:
    """Return each class's AP in percent: the mean over IoUs and recalls, for all sizes and the last of `maxDets`.

    `precision` is COCOeval's table (IoU, recall, class, size, maxDets); a class without objects has None.
    """
    tables = precision[:, :, :, 0, -1].transpose(2, 0, 1)
    return {name: 100 * float(table[table > -1].mean()) if (table > -1).any() else None
            for name, table in zip(classes, tables, strict=True)}


def errors(evaluator: FastEval) -> dict[str, float]:
    """Return by how many points of AP at an IoU of 0.5 each kind of error lowers it, after TIDE."""
    found = evaluator.tide_errors()['delta_ap']
    return {name: 100 * found[name] for name in ERRORS}


def as_fast(evaluator) -> FastEval:
    """Return the evaluator itself, or for another's a FastEval that has matched the same results by its settings."""
    if isinstance(evaluator, FastEval):
        return evaluator
    made = FastEval(evaluator.cocoGt, evaluator.cocoDt, evaluator.params.iouType)
    for name in ('imgIds', 'iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl'):
        setattr(made.params, name, getattr(evaluator.params, name))
    made.params.catIds = evaluator.params.asked
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'hotcoco: ')
        made.evaluate()
    return made


def _evidence(evaluators: dict[str, FastEval]) -> Callable[[], dict]:
    """Keep the truth and the results, which are small, and not the evaluators, which hold every match."""
    params = next(iter(evaluators.values())).params
    numbers = next(iter(evaluators.values())).numbers()
    data = {kind: (evaluator.coco_gt, evaluator.coco_dt) for kind, evaluator in evaluators.items()}
    return partial(content_of, data, *numbers, np.asarray(params.iouThrs).tolist(), [int(n) for n in params.maxDets])


def content_of(data: dict[str, tuple], images: list[int], categories: list[int], iou_thrs: list[float],
               max_dets: list[int]) -> dict:
    """Return the content of a per-image file (`mmincubation/leaderboard/per_image.py` says what it has).

    `data` has hotcoco's truth and results by kind; `images` and `categories` are the numbers of those that count.
    """
    truth = data.get('segm', next(iter(data.values())))[0]
    place, label = ({number: i for i, number in enumerate(some)} for some in (images, categories))
    columns = partial(_columns, place=place, label=label)
    known, names = truth.imgs, truth.cats  # each a new copy
    entries = [known[number] for number in images]
    return dict(
        task='detection', classes=[names[number]['name'] for number in categories],
        images=[[entry['file_name'].replace('\\', '/').rpartition('/')[2], entry['width'], entry['height']]
                for entry in entries],
        iou_thrs=iou_thrs, max_dets=max_dets, truth=columns(truth, 'iscrowd', masks='segm' in data),
        results={kind: columns(results, 'score', masks=kind == 'segm') for kind, (_, results) in data.items()})


def _columns(coco, key: str, place: dict[int, int], label: dict[int, int], masks: bool) -> dict[str, list]:
    """Return the annotations of these images and classes as columns; masks as COCO's compressed RLE."""
    kept = [entry for entry in coco.dataset['annotations']
            if entry['image_id'] in place and entry['category_id'] in label]
    found = dict(image=[place[entry['image_id']] for entry in kept], label=[label[e['category_id']] for e in kept],
                 bbox=[entry['bbox'] for entry in kept], area=[entry['area'] for entry in kept])
    found[key] = [entry[key] for entry in kept]
    if masks:
        found['mask'] = [coco.ann_to_rle(entry)['counts'].decode() for entry in kept]
    return found
