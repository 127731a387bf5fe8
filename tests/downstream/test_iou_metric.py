"""Classes that no pixel has are named with the mean IoU that leaves them out."""
import gzip
import logging

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger

from mmincubation.downstream.evidence import details_of, write_per_image
from mmincubation.downstream.iou_metric import extend_iou_metrics, in_words
from mmincubation.leaderboard.per_image import read_per_image


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


def evaluated(names: list[str], seed: int = 0):
    """(evaluator, mmseg's numbers, pictures) of random pictures of four classes; the last is in none."""
    from mmseg.evaluation import IoUMetric
    rng = np.random.default_rng(seed)
    evaluator = Evaluator([IoUMetric()])
    extend_iou_metrics(evaluator)
    evaluator.dataset_meta = dict(classes=('background', 'cat', 'dog', 'sheep'))
    pictures = [dict(gt_sem_seg=rng.choice([0, 1, 2, 255], (9, 9)), pred_sem_seg=rng.integers(0, 3, (9, 9)))
                for _ in names]
    for name, picture in zip(names, pictures, strict=True):
        sample = {key: dict(data=torch.tensor(value)[None]) for key, value in picture.items()}
        evaluator.process([dict(sample, img_path=f'/somewhere/{name}')], {})
    return evaluator, evaluator.evaluate(len(names)), pictures


def test_the_ious_of_classes_are_mmsegs(monkeypatch):
    said = []
    monkeypatch.setattr('mmseg.evaluation.metrics.iou_metric.print_log', lambda text, *_, **__: said.append(text))
    evaluator, numbers, _ = evaluated(['a.png', 'b.png'])
    table = details_of(evaluator)['IoU by class']
    rows = [[cell.strip() for cell in line.split('|')[1:3]] for line in said[1].splitlines() if '|' in line][1:]
    assert [*table] == [name for name, _ in rows] and table['sheep'] is None and rows[3][1] == 'nan'
    assert [round(value, 2) for value in list(table.values())[:3]] == [float(value) for _, value in rows[:3]]
    assert np.mean(list(table.values())[:3]) == pytest.approx(numbers['mIoU'], abs=6e-3)


def test_areas_of_every_image_are_kept_by_name_in_one_order(tmp_path):
    evaluator, _, pictures = evaluated(['b.png', 'a.png'])
    assert write_per_image(evaluator, tmp_path / 'one.json.gz')
    content = read_per_image(tmp_path / 'one.json.gz')
    assert content['images'] == ['a.png', 'b.png'] and content['classes'] == ['background', 'cat', 'dog', 'sheep']
    for rows, picture in zip(content['areas'], pictures[::-1], strict=True):
        truth, predicted = picture['gt_sem_seg'], picture['pred_sem_seg']
        predicted = np.where(truth == 255, 255, predicted)
        assert rows == [[i, ((truth == i) & (predicted == i)).sum(), (predicted == i).sum(), (truth == i).sum()]
                        for i in range(3)]
    write_per_image(evaluator, tmp_path / 'two.json.gz')
    assert (tmp_path / 'one.json.gz').read_bytes() == (tmp_path / 'two.json.gz').read_bytes()
    assert b'somewhere' not in gzip.decompress((tmp_path / 'one.json.gz').read_bytes())


def test_a_metric_that_only_writes_pictures_has_no_evidence(tmp_path):
    from mmseg.evaluation import IoUMetric
    evaluator = Evaluator([IoUMetric(format_only=True, output_dir=str(tmp_path))])
    extend_iou_metrics(evaluator)
    evaluator.dataset_meta = dict(classes=('a', 'b'))
    evaluator.process([dict(pred_sem_seg=dict(data=torch.zeros(1, 4, 4, dtype=torch.long)), img_path='x.png')], {})
    MMLogger.get_instance('iou')
    evaluator.metrics[0].compute_metrics([])
    assert details_of(evaluator) == {} and not write_per_image(evaluator, tmp_path / 'file')
    assert (tmp_path / 'x.png').exists()
