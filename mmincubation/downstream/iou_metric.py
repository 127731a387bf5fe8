"""Say in words what the nan in the table of mmseg's IoUMetric means."""
import sys

from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

SHOWN = 5


def name_missing_classes(evaluator: Evaluator) -> None:
    """Let mmseg's IoUMetrics of an evaluator warn of classes that no pixel of the truth has."""
    stock = sys.modules.get('mmseg.evaluation')
    for metric in evaluator.metrics if stock else ():
        if isinstance(metric, stock.IoUMetric):
            metric.compute_metrics = _warning(metric, metric.compute_metrics)


def _warning(metric, compute):
    def compute_metrics(results: list) -> dict[str, float]:
        """Return mmseg's numbers from the areas (intersection, union, prediction, truth) of all images."""
        found = compute(results)
        if results and not metric.format_only:
            _, union, _, truth = (sum(areas) for areas in zip(*results, strict=True))
            if text := in_words(metric.dataset_meta['classes'], union.tolist(), truth.tolist()):
                MMLogger.get_current_instance().warning(text)
        return found

    return compute_metrics


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
