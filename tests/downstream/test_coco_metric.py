"""FastCocoMetric against mmdet's CocoMetric, and its evaluator against pycocotools: equal to the last bit."""
import copy
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mmincubation.config.types import type_problems
from mmincubation.downstream.fast_eval import FastEval
from mmincubation.registry import METRICS
from tests.helpers.synthetic_coco import CATEGORY_IDS, predictions, truth

KEYS = dict(bbox=('bbox', ), segm=('segmentation', ))


@pytest.fixture(scope='module')
def found():
    return truth(60, seed=3)


def evaluate(evaluator, found: dict, results: list[dict], iou_type: str, **params):
    """(evaluator after its three steps) on fresh copies: pycocotools changes what it is given."""
    coco = COCO()
    coco.dataset = copy.deepcopy(found)
    coco.createIndex()
    run = evaluator(coco, coco.loadRes(copy.deepcopy(results)), iou_type)
    for name, value in params.items():
        setattr(run.params, name, value)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run


def assert_equal(found, results, iou_type, **params) -> np.ndarray:
    """All 12 numbers, and the tables they are made of; returns the numbers."""
    theirs, ours = (evaluate(kind, found, results, iou_type, **params) for kind in (COCOeval, FastEval))
    assert len(theirs.stats) == 12 and np.array_equal(theirs.stats, ours.stats)
    for table in ('precision', 'recall', 'scores'):
        assert np.array_equal(theirs.eval[table], ours.eval[table]), table
    return theirs.stats


def test_the_synthetic_data_has_what_must_be_tried(found):
    areas = np.array([a['area'] for a in found['annotations']])
    results = predictions(found)
    scores = [r['score'] for r in results]
    with_truth, with_results = ({a['image_id'] for a in some} for some in (found['annotations'], results))
    images = {image['id'] for image in found['images']}
    assert min((areas < 32**2).sum(), ((areas >= 32**2) & (areas < 96**2)).sum(), (areas >= 96**2).sum()) > 50
    assert any(a['iscrowd'] for a in found['annotations']) and len(set(scores)) < len(scores) / 2
    assert images - with_truth and images - with_results and with_truth - with_results


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
@pytest.mark.parametrize('params', [
    dict(),
    dict(maxDets=[100, 300, 1000]),  # mmdet's
    dict(maxDets=[1, 3, 100], useCats=0),
    dict(catIds=CATEGORY_IDS[:20], iouThrs=np.array([0.5, 0.6])),
], ids=['pycocotools', 'mmdet', 'no_classes', 'subset'])
def test_all_twelve_numbers(found, iou_type, params):
    stats = assert_equal(found, predictions(found, keys=KEYS[iou_type]), iou_type, **params)
    assert 0.05 < stats[0] < 0.95


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_crowds_count(found, iou_type):
    """The numbers change when crowds become ordinary objects, so their rules are among what was compared."""
    plain = copy.deepcopy(found)
    for annotation in plain['annotations']:
        annotation['iscrowd'] = 0
    results = predictions(found, keys=KEYS[iou_type])
    assert not np.array_equal(assert_equal(found, results, iou_type), assert_equal(plain, results, iou_type))


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_equal_scores_everywhere(found, iou_type):
    results = [dict(r, score=0.5) for r in predictions(found, keys=KEYS[iou_type])]
    assert_equal(found, results, iou_type)


@pytest.mark.parametrize('iou_type', ['bbox', 'segm'])
def test_no_truth_and_one_prediction(found, iou_type):
    results = predictions(found, keys=KEYS[iou_type])
    assert set(assert_equal(dict(found, annotations=[]), results, iou_type)) == {-1}
    assert_equal(found, results[:1], iou_type)


def samples(found: dict, empty: bool = False, seed: int = 1) -> list[dict]:
    """Predictions as a detector gives them to a metric: tensors per image, masks as RLE."""
    import torch
    label = {category: i for i, category in enumerate(CATEGORY_IDS)}
    per_image = {image['id']: [] for image in found['images']}
    for result in [] if empty else predictions(found, seed):
        per_image[result['image_id']].append(result)
    made = []
    for image in found['images']:
        results = per_image[image['id']]
        boxes = torch.tensor([r['bbox'] for r in results]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        instances = dict(bboxes=boxes, scores=torch.tensor([r['score'] for r in results]),
                         labels=torch.tensor([label[r['category_id']] for r in results], dtype=torch.long),
                         masks=[r['segmentation'] for r in results])
        made.append(dict(img_id=image['id'], ori_shape=(image['height'], image['width']), pred_instances=instances))
    return made


def measure(kind: str, found: dict, made: list[dict], **options) -> dict:
    metric = METRICS.build(dict(type=kind, **options))
    metric.dataset_meta = dict(classes=tuple(category['name'] for category in found['categories']))
    metric.process({}, copy.deepcopy(made))
    return metric.evaluate(len(made))


@pytest.fixture(scope='module')
def ann_file(found, tmp_path_factory):
    path = tmp_path_factory.mktemp('coco') / 'instances.json'
    path.write_text(json.dumps(found))
    return str(path)


@pytest.mark.parametrize('options', [
    dict(metric=['bbox', 'segm']),
    dict(metric='segm', classwise=True),
    dict(metric='segm', metric_items=['mAP', 'AR@100', 'AR_l@1000'], proposal_nums=(1, 10, 100), prefix='x'),
    dict(metric=['proposal', 'bbox'], use_mp_eval=True),
], ids=['both', 'classwise', 'items', 'proposal'])
def test_the_metric_is_mmdets(found, ann_file, options):
    made = samples(found)
    theirs = measure('mmdet.CocoMetric', found, made, ann_file=ann_file, **dict(options, use_mp_eval=False))
    ours = measure('mmincubation.FastCocoMetric', found, made, ann_file=ann_file, **options)
    assert list(ours) == list(theirs) and len(ours) >= 3
    assert np.array_equal([*ours.values()], [*theirs.values()], equal_nan=True)


@pytest.mark.parametrize('options', [dict(), dict(proposal_nums=(1, 50, 100)), dict(proposal_nums=(1, 10, 50))])
def test_map_counts_a_hundred_results_of_an_image_as_pycocotools_does(tmp_path, options):
    boxes = [[13. * (i % 15), 13. * (i // 15), 10., 10.] for i in range(150)]
    found = dict(images=[dict(id=1, width=200, height=200)], categories=[dict(id=1, name='cell')], annotations=[
        dict(id=i, image_id=1, category_id=1, bbox=box, area=100., iscrowd=0) for i, box in enumerate(boxes, 1)])
    path = tmp_path / 'instances.json'
    path.write_text(json.dumps(found))
    ends = torch.tensor(boxes)
    ends[:, 2:] += ends[:, :2]
    made = [dict(img_id=1, ori_shape=(200, 200), pred_instances=dict(
        bboxes=ends, scores=torch.linspace(.9, .1, 150), labels=torch.zeros(150, dtype=torch.long)))]
    theirs, ours = (measure(kind, found, made, ann_file=str(path), metric='bbox', **options)
                    for kind in ('mmdet.CocoMetric', 'mmincubation.FastCocoMetric'))
    assert ours == theirs and ours['coco/bbox_mAP'] < .7


def test_nothing_predicted(found, ann_file):
    theirs, ours = (measure(kind, found, samples(found, empty=True), ann_file=ann_file, metric=['bbox', 'segm'])
                    for kind in ('mmdet.CocoMetric', 'mmincubation.FastCocoMetric'))
    assert ours == theirs and ours['coco/bbox_mAP'] == ours['coco/segm_mAP'] == 0


def test_format_only_writes_mmdets_files(found, ann_file, tmp_path):
    for kind in ('mmdet.CocoMetric', 'mmincubation.FastCocoMetric'):
        assert not measure(kind, found, samples(found), ann_file=ann_file, metric=['bbox', 'segm'], format_only=True,
                           outfile_prefix=str(tmp_path / kind))
    for what in ('bbox', 'segm'):
        theirs, ours = ((tmp_path / f'{kind}.{what}.json').read_bytes()
                        for kind in ('mmdet.CocoMetric', 'mmincubation.FastCocoMetric'))
        assert ours == theirs and len(json.loads(ours)) == len(predictions(found))


def test_mmdets_own_metric_keeps_its_evaluator():
    from mmdet.evaluation.metrics import coco_metric
    METRICS.build(dict(type='mmincubation.FastCocoMetric'))
    assert coco_metric.CocoMetric.compute_metrics.__globals__['COCOeval'] is COCOeval


@pytest.mark.parametrize('options, named', [
    (dict(classwize=True), "no such key (nearest: 'classwise')"),
    (dict(format_only=True, outfile='x'), "no such key (nearest: 'outfile_prefix')")])
def test_a_config_with_a_wrong_key_is_refused(options, named):
    evaluator = dict(type='mmincubation.FastCocoMetric', metric=['bbox', 'segm'])
    assert not list(type_problems(dict(default_scope='mmdet', val_evaluator=evaluator)))
    (line, ) = type_problems(dict(default_scope='mmdet', val_evaluator=evaluator | options))
    assert named in line
