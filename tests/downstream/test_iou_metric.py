"""Classes that no pixel has are named with the mean IoU that leaves them out."""
import logging

import numpy as np
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

from mmincubation.downstream.iou_metric import extend_iou_metrics, in_words


def measured(truth: np.ndarray, predicted: np.ndarray, caplog) -> tuple[dict, list[str]]:
    from mmseg.evaluation import IoUMetric
    evaluator = Evaluator([IoUMetric()])
    extend_iou_metrics(evaluator)
    evaluator.dataset_meta = dict(classes=('background', 'cat', 'dog', 'sheep'))
    logger = MMLogger.get_instance('iou')
    logger.addHandler(caplog.handler)
    pictures = dict(pred_sem_seg=predicted, gt_sem_seg=truth)
    evaluator.metrics[0].process({}, [{key: dict(data=torch.tensor(value)[None]) for key, value in pictures.items()}])
    found = evaluator.metrics[0].evaluate(1)
    return found, [record.message for record in caplog.records
                   if record.levelno == logging.WARNING and 'pixel of the truth' in record.message]


def test_missing_classes_are_named_with_what_they_count(caplog):
    found, said = measured(np.array([[0, 0], [1, 255]]), np.array([[0, 2], [1, 3]]), caplog)
    assert found['mIoU'] == 50  # 1/2, 1/1 and 0/1
    assert said == ['2 of 4 classes are in no pixel of the truth: dog (predicted: IoU 0 in the mean); sheep (not '
                    'predicted either: nan, left out of the mean)']


def test_nothing_is_said_of_a_full_truth(caplog):
    assert measured(np.array([[0, 1], [2, 3]]), np.array([[0, 1], [2, 3]]), caplog)[1] == []


def test_a_truth_of_ignored_pixels():
    assert in_words(('a', 'b'), [3, 0], [0, 0]) == 'every pixel of the truth is ignored: nothing was measured'
