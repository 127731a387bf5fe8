"""A score that is watched and that no metric gives is a line before the run, not an end at its first validation."""
from itertools import product

import pytest
from mmengine.config import Config
from mmengine.registry import METRICS

from mmincubation.config.scores import score_problems

BOX, BOTH = dict(type='CocoMetric'), dict(type='mmincubation.FastCocoMetric', metric=['bbox', 'segm'])
IOU, TOP = dict(type='mmseg.IoUMetric'), dict(type='mmincubation.Accuracy', topk=(1, 5))
WATCHERS = {
    'default_hooks.checkpoint.save_best': lambda name: dict(
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best=name))),
    'custom_hooks.0.save_best': lambda name: dict(
        custom_hooks=[dict(type='mmincubation.CheckpointHook', save_best=[name])]),
    'custom_hooks.0.monitor': lambda name: dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor=name)]),
    'custom_hooks.0.metric': lambda name: dict(custom_hooks=[dict(type='mmincubation.WeightsHook', metric=name)]),
    'param_scheduler.1.monitor': lambda name: dict(param_scheduler=[
        dict(type='LinearLR'), dict(type='ReduceOnPlateauLR', monitor=name)])}


def lines(evaluators, **settings):
    return list(score_problems(Config(dict(val_evaluator=evaluators, default_scope='mmdet', **settings))))


@pytest.mark.parametrize('place', WATCHERS)
@pytest.mark.parametrize('name, evaluators, expected', [
    ('bbox_mAP', BOX, 'gives coco/bbox_mAP'), ('coco/segm_mAP', BOX, 'no such score'), ('top1', TOP, 'accuracy/top5'),
    ('accuracy/top5', dict(TOP, topk=1), 'it gives accuracy/top1'), ('mIoU', TOP, 'accuracy/top1'),
    ('bbox_mAP', dict(BOX, prefix='val'), 'val/bbox_mAP,'), ('mDice', IOU, 'no such score'),
    ('coco/bbox_mAP', IOU, 'it gives aAcc, mIoU, mAcc'),
    ('coco/bbox_mAP_50', dict(BOX, metric_items=['mAP']), 'it gives coco/bbox_mAP'),
    ('mAP', dict(type='VOCMetric'), 'write pascal_voc/mAP'),
    ('mAP', [BOX, dict(type='VOCMetric')], 'coco/mAP or pascal_'),
])
def test_a_score_that_no_metric_gives(place, name, evaluators, expected):
    line, = lines(evaluators, **WATCHERS[place](name))
    assert line.startswith(f'{place}={name}: ') and expected in line


@pytest.mark.parametrize('place', WATCHERS)
@pytest.mark.parametrize('name, evaluators', [
    ('coco/bbox_mAP', BOX), ('coco/segm_mAP_l', BOTH), ('mIoU', IOU), ('mIoU', [BOX, IOU]), ('accuracy/top5', TOP),
    ('mDice', dict(IOU, iou_metrics=['mIoU', 'mDice'])), ('mPrecision', dict(IOU, iou_metrics='mFscore')),
    ('coco/cat_precision', dict(BOX, classwise=True)), ('coco/AR@100', dict(BOX, metric='proposal')),
    ('pascal_voc/mAP', dict(type='VOCMetric')), ('x', dict(type='mmseg.CityscapesMetric', output_dir='x')), ('x', None),
    ('x', []), ('x', dict(no='type'))])
def test_scores_that_are_given_or_not_known(place, name, evaluators):
    assert lines(evaluators, **WATCHERS[place](name)) == []


def test_each_name_of_a_list_is_judged():
    checkpoint = dict(type='CheckpointHook', save_best=['coco/bbox_mAP', 'segm_mAP'])
    line, = lines(BOTH, default_hooks=dict(checkpoint=checkpoint))
    assert line.startswith('default_hooks.checkpoint.save_best=segm_mAP: ')


def test_auto_and_schedules_of_iterations_watch_no_name():
    assert lines(BOX, default_hooks=dict(checkpoint=dict(type='CheckpointHook', save_best='auto')),
                 param_scheduler=dict(type='ReduceOnPlateauLR', monitor='x', by_epoch=False)) == []


@pytest.mark.parametrize('asked', [('mIoU', ), ('mDice', 'mFscore'), ('mFscore', )])
def test_the_scores_of_segmentation_are_those_of_mmseg(asked):
    import torch
    metric = METRICS.build(dict(IOU, iou_metrics=list(asked)))
    metric.dataset_meta = dict(classes=('a', 'b'))
    areas = tuple(torch.tensor([3., 4.]) for _ in range(4))
    assert set(metric.compute_metrics([areas])) == _given(dict(IOU, iou_metrics=list(asked)))


@pytest.mark.parametrize('kinds, items', product([('bbox', ), ('bbox', 'segm')], [None, ['mAP', 'mAP_50']]))
def test_the_scores_of_detection_are_those_of_mmdet(tmp_path, kinds, items):
    from tests.helpers.synthetic_coco import write_coco
    write_coco(tmp_path)
    settings = dict(BOX, metric=list(kinds), metric_items=items, ann_file=str(next(tmp_path.rglob('*val*.json'))))
    metric = METRICS.build({**settings, 'type': 'mmdet.CocoMetric'})
    metric.dataset_meta = dict(classes=tuple(cat['name'] for cat in metric._coco_api.dataset['categories']))
    found = {f'coco/{name}' for name in metric.compute_metrics(_perfect(metric._coco_api))}
    assert found == _given(settings)


def _given(evaluator):
    line, = lines(evaluator, custom_hooks=[dict(type='EarlyStoppingHook', monitor='none such')])
    return set(line.partition('it gives ')[2].split(', '))


def _perfect(api):
    """The truth of one image as a prediction, in the form that CocoMetric keeps."""
    import numpy as np
    image, marks = next((i, marks) for i in api.getImgIds() if (marks := api.imgToAnns[i]))
    x, y, w, h = np.array([mark['bbox'] for mark in marks], float).T
    names = {cat: i for i, cat in enumerate(api.getCatIds())}
    return [({}, dict(
        img_id=image, bboxes=np.stack([x, y, x + w, y + h], 1), scores=np.ones(len(marks)),
        labels=np.array([names[mark['category_id']] for mark in marks]), mask_scores=np.ones(len(marks)),
        masks=[api.annToRLE(mark) for mark in marks]))]
