"""Average precision of images drawn with replacement, from hotcoco's matches.

hotcoco 1.3.0 has a bootstrap of its own in `hotcoco.compare`. It counts an image that was drawn twice once, so its
intervals are too narrow by a quarter. Here an image counts as often as it was drawn.
"""
from __future__ import annotations

from itertools import chain
from typing import Any

BLOCK = 2 * 10**5  # detections times draws that are looked at together: they fit a processor's cache


def draws_of(images: int, draws: int, seed: int):
    """Return how often each image is drawn, (1 + draws, images); in the first row each image is there once."""
    import numpy as np
    drawn = np.random.default_rng(seed).multinomial(images, [1 / images] * images, size=draws)
    return np.concatenate([np.ones((1, images), int), drawn]).astype(np.int32)


def drawn_precisions(evaluator, counts) -> dict[str, Any]:
    """Return hotcoco's AP, AP50, AP75, APs, APm and APl for each row of `counts` (draws, images); nan without objects.

    `evaluator` is a hotcoco.COCOeval whose images have the ids 1, 2, ...; its matches are replaced.
    """
    import numpy as np
    params, by_class, counts = evaluator.params, [], np.ascontiguousarray(counts.T)
    for category in params.cat_ids:  # one by one, because the matches of all take much memory as Python objects
        params.cat_ids = [category]
        evaluator.evaluate()
        by_class.append(_of_class(evaluator.eval_imgs, params, counts))
    found = {}
    for key in by_class[0]:
        table = np.stack([values[key] for values in by_class])
        some = ~np.isnan(table)
        with np.errstate(invalid='ignore'):
            found[key] = np.where(some, table, 0).sum(0) / np.where(some.any(0), some.sum(0), np.nan)
    return found


def _of_class(entries: list[dict], params, counts) -> dict[str, Any]:
    import numpy as np
    caps, ious = params.max_dets, np.array(params.iou_thrs)
    areas = [[entry for entry in entries if entry and entry['aRng'] == area] for area in params.area_rng]
    precisions = [_precisions(some, len(ious), counts, caps[-1]) for some in areas]
    # The summary's mAP counts 100 results of an image, where it may.
    first = _precisions(areas[0], len(ious), counts, 100) if 100 in caps[:-1] else precisions[0]
    found = dict(AP=first.mean(0))
    for key, iou in (('AP50', 0.5), ('AP75', 0.75)):
        at = np.flatnonzero(np.isclose(ious, iou))
        found[key] = precisions[0][at[0]] if len(at) else np.full(counts.shape[1], np.nan)
    return found | {key: part.mean(0) for key, part in zip(('APs', 'APm', 'APl'), precisions[1:], strict=True)}


def _precisions(entries: list[dict], ious: int, counts, cap: int):
    """Return the AP of one class and size by IoU and draw, (ious, draws), from the matches of its images.

    `counts` (images, draws) says how often each image was drawn.
    """
    import numpy as np
    images = np.array([entry['image_id'] - 1 for entry in entries], int)
    objects = np.array([entry['gtIgnore'].count(False) for entry in entries], np.int32) @ counts[images]
    scores = [entry['dtScores'][:cap] for entry in entries]
    order = np.argsort(-np.array([*chain.from_iterable(scores)], float), kind='stable')
    owners = np.repeat(images, [len(some) for some in scores])[order]
    hits, ignored = (np.concatenate([np.zeros((ious, 0), bool), *(
        np.array(entry[key], bool).reshape(ious, -1)[:, :cap] for entry in entries)], 1)[:, order]
        for key in ('dtMatched', 'dtIgnore'))
    blocks, draws = [], max(1, BLOCK // max(len(order), 1))
    for start in range(0, counts.shape[1], draws):
        part = slice(start, start + draws)
        weights = counts[owners, part]
        blocks.append(np.stack([_precision(weights if kept.all() else weights[kept], hit[kept], objects[part])
                                for hit, kept in zip(hits, ~ignored, strict=True)]))
    return np.concatenate(blocks, 1)


def _precision(weights, hits, objects):
    """Return COCO's AP, the mean of the precision at 101 recalls, by draw.

    `weights` (detections, draws) says how often a detection counts, from the highest score on; `hits` which of them
    found an object; `objects` (draws) how many there are.
    """
    import numpy as np
    recalls = np.linspace(0, 1, 101)
    seen, found = (some.cumsum(0, np.int32) for some in (weights, weights[hits]))
    recall, precision = found / np.maximum(objects, 1), found / (seen[hits] + np.spacing(1))
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    reached = (100 * recall + 1e-9).astype(int)
    reached += recalls[reached] <= recall  # how many of the recalls each hit has reached
    new = np.diff(reached, axis=0, prepend=0)
    return np.where(objects > 0, (precision * new).sum(0) / len(recalls), np.nan)
