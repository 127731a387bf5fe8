"""Say in words what the nan in the table of mmseg's IoUMetric means, and keep its numbers by class and by image."""
import sys
from collections.abc import Callable
from functools import partial, wraps
from pathlib import PurePath

from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

SHOWN = 5


def extend_iou_metrics(evaluator: Evaluator) -> None:
    """Let mmseg's IoUMetrics of an evaluator warn of classes that no pixel of the truth has, and keep more numbers.

    After an evaluation, on the main rank, `details` has the IoUs by class in percent, and `evidence` is a function that
    makes the content of a per-image file.
    """
    stock = sys.modules.get('mmseg.evaluation')
    for metric in evaluator.metrics if stock else ():
        if isinstance(metric, stock.IoUMetric):
            metric.details, metric.evidence = {}, None
            metric.process = _naming(metric, metric.process)
            metric.compute_metrics = _keeping(metric, metric.compute_metrics)


def _naming(metric, process: Callable) -> Callable:
    """Add the image's name to each of its areas, so that both reach the main rank together."""

    @wraps(process)
    def named(data_batch: dict, data_samples: list[dict]) -> None:
        before = len(metric.results)
        process(data_batch, data_samples)
        made = metric.results[before:]
        if len(made) == len(data_samples):  # none with format_only
            names = [PurePath(str(sample.get('img_path', ''))).name for sample in data_samples]
            metric.results[before:] = [(*areas, name) for areas, name in zip(made, names, strict=True)]

    return named


def _keeping(metric, compute: Callable) -> Callable:

    @wraps(compute)
    def compute_metrics(results: list) -> dict[str, float]:
        """Return mmseg's numbers from the areas (intersection, union, prediction, truth) and the names of all images.

        `results` are tuples (4 areas of all classes, name).
        """
        metric.details, metric.evidence = {}, None
        areas, names = [found[:4] for found in results], [found[4] if len(found) > 4 else '' for found in results]
        found = compute(areas)
        if areas and not metric.format_only:
            classes = list(map(str, metric.dataset_meta['classes']))
            inside, union, _, truth = (sum(some).tolist() for some in zip(*areas, strict=True))
            metric.details = {'IoU by class': ious(classes, inside, union)}
            metric.evidence = partial(content_of, classes, names, areas)
            if text := in_words(classes, union, truth):
                MMLogger.get_current_instance().warning(text)
        return found

    return compute_metrics


def ious(classes: list[str], inside: list[float], union: list[float]) -> dict[str, float | None]:
    """Return each class's IoU in percent from its areas in all images; None without a pixel in truth and prediction."""
    return {name: 100 * a / b if b else None for name, a, b in zip(classes, inside, union, strict=True)}


def content_of(classes: list[str], names: list[str], areas: list[tuple]) -> dict:
    """Return the content of a per-image file (`mmincubation/leaderboard/per_image.py` says what it has)."""
    found = []
    for inside, _, predicted, truth in (map(_counts, some) for some in areas):
        rows = zip(range(len(classes)), inside, predicted, truth, strict=True)
        found.append([list(row) for row in rows if row[2] or row[3]])
    order = sorted(range(len(names)), key=lambda i: (names[i], i))  # whatever order the images came in
    return dict(task='segmentation', classes=classes, images=[names[i] for i in order], areas=[found[i] for i in order])


def _counts(areas) -> list[int]:
    return [int(area) for area in areas.tolist()]


def in_words(classes: tuple[str, ...], union: list[float], truth: list[float]) -> str | None:
    """Return which classes are in no pixel of the truth, and how they count; None if there are none.

    `union` and `truth` are areas in pixels, one for each of the `classes`.
    """
    absent = [(str(name), area) for name, area, there in zip(classes, union, truth, strict=True) if not there]
    guessed, unseen = [name for name, area in absent if area], [name for name, area in absent if not area]
    if len(absent) == len(classes):
        return 'every pixel of the truth is ignored: nothing was measured'
    kinds = ((guessed, 'predicted: IoU 0 in the mean'), (unseen, 'not predicted either: nan, left out of the mean'))
    parts = [f'{", ".join(names[:SHOWN])}{", ..." * (len(names) > SHOWN)} ({how})' for names, how in kinds if names]
    said = f'{len(absent)} of {len(classes)} classes are in no pixel of the truth: {"; ".join(parts)}'
    return said if absent else None
