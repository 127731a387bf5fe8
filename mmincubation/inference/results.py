"""Results of models as plain arrays, and the colours of classes."""
from typing import Any

import numpy as np

from mmincubation.datasets.classes import Names
from mmincubation.errors import ConfigError


def plain(output: Any, names: Names) -> dict:
    """Return a model's result for one image as `Predictor.predict` describes it.

    Raises:
        ConfigError: it is of another task.
    """
    if isinstance(output, dict):
        return _classification(output['scores'].cpu().numpy(), names)
    if 'pred_instances' in output:
        return _detection(output.pred_instances.cpu(), names)
    if 'pred_sem_seg' in output:
        return dict(classes=output.pred_sem_seg.data.squeeze(0).cpu().numpy().astype(np.int64), names=names)
    raise ConfigError(f'a {type(output).__name__} without pred_instances and pred_sem_seg: classifiers, detectors and '
                      'segmentors predict here')


def _classification(scores: np.ndarray, names: Names) -> dict:
    order = np.argsort(-scores, kind='stable')
    return dict(label=int(order[0]), name=names[order[0]], scores={names[i]: float(scores[i]) for i in order})


def _detection(found, names: Names) -> dict:
    labels = found.labels.numpy()
    result = dict(boxes=found.bboxes.numpy(), scores=found.scores.numpy(), labels=labels,
                  names=[names[i] for i in labels])
    return result | (dict(masks=found.masks.numpy().astype(bool)) if 'masks' in found else {})


def colours(palette: Any, count: int) -> np.ndarray:
    """Return colours (count, 3) uint8: a data set's palette if it is one for as many classes, or else PASCAL VOC's."""
    try:
        found = np.array(palette, np.uint8)
    except (ValueError, TypeError, OverflowError):  # a name, or what a file from elsewhere has there
        found = np.zeros((0, 3))
    return found if found.shape == (count, 3) else _voc(count)


def _voc(count: int) -> np.ndarray:
    """Return PASCAL VOC's colours from number 1 on: every third bit of the number goes to one channel, from the top."""
    numbers = np.arange(1, count + 1)[:, None]
    bits = [(numbers >> (3 * i + np.arange(3)) & 1) << 7 - i for i in range(8)]
    return np.sum(bits, 0).astype(np.uint8)
