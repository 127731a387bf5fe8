"""AP by class and TIDE's errors of a COCO evaluation: mmdet's own numbers, under the classes' names."""
import json
import math

import numpy as np
import pytest
from mmengine.evaluator import Evaluator
from mmengine.registry import init_default_scope

from mmincubation.downstream.coco_details import ERRORS, class_aps
from mmincubation.downstream.evidence import details_of, write_per_image
from mmincubation.leaderboard.compare import compare_files
from mmincubation.registry import METRICS
from tests.downstream.test_coco_metric import samples
from tests.downstream.test_coco_names import metric_of, perfect
from tests.helpers.named_coco import NAMES, write
from tests.helpers.synthetic_coco import truth

OURS = ['mmincubation.FastCocoMetric', 'mmincubation.NamedCocoMetric']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def found():
    return truth(40, seed=5)


@pytest.fixture(scope='module')
def ann_file(found, tmp_path_factory):
    path = tmp_path_factory.mktemp('coco') / 'instances.json'
    path.write_text(json.dumps(found))
    return str(path)


def evaluated(kind: str, found: dict, made: list[dict], **options):
    metric = METRICS.build(dict(type=kind, **options))
    evaluator = Evaluator([metric])
    evaluator.dataset_meta = dict(classes=tuple(category['name'] for category in found['categories']))
    metric.process({}, made)
    return evaluator, metric.evaluate(len(made))


@pytest.mark.parametrize('kind', OURS)
def test_the_aps_of_classes_are_mmdets(kind, found, ann_file):
    evaluator, _ = evaluated(kind, found, samples(found), ann_file=ann_file, metric=['bbox', 'segm'])
    details = details_of(evaluator)
    for what, title in (('bbox', 'box AP by class'), ('segm', 'mask AP by class')):
        theirs = evaluated('mmdet.CocoMetric', found, samples(found), ann_file=ann_file, metric=what, classwise=True)[1]
        table = details[title]
        assert [f'coco/{name}_precision' for name in table] == [key for key in theirs if key.endswith('_precision')]
        given = [math.nan if ap is None else ap / 100 for ap in table.values()]
        assert np.allclose(given, [theirs[f'coco/{name}_precision'] for name in table], atol=6e-4, equal_nan=True)
        known = [ap for ap in table.values() if ap is not None]
        assert abs(np.mean(known) / 100 - theirs[f'coco/{what}_mAP']) < 6e-4 and len(known) > 40


def test_both_metrics_give_the_same_details_and_files(found, ann_file, tmp_path):
    made = []
    for kind in OURS:
        evaluator, _ = evaluated(kind, found, samples(found), ann_file=ann_file, metric=['segm', 'bbox'])
        assert write_per_image(evaluator, tmp_path / kind)
        made.append((details_of(evaluator), (tmp_path / kind).read_bytes()))
    assert made[0] == made[1]
    assert [*made[0][0]] == ['mask AP by class', 'mask errors (TIDE)', 'box AP by class', 'box errors (TIDE)']


def test_a_comparison_has_the_numbers_of_the_evaluations(found, ann_file, tmp_path, monkeypatch):
    monkeypatch.setattr('mmincubation.leaderboard.compare.DRAWS', 20)
    paths, numbers, details = [tmp_path / name for name in 'ab'], [], []
    for path, seed in zip(paths, (1, 2), strict=True):
        evaluator, found_numbers = evaluated(OURS[0], found, samples(found, seed=seed), ann_file=ann_file,
                                             metric=['bbox', 'segm'])
        assert write_per_image(evaluator, path)
        numbers.append(found_numbers)
        details.append(details_of(evaluator))
    compared = compare_files(*paths)
    for entry in compared['metrics']:
        key = f'coco/{entry["name"].replace("box ", "bbox_").replace("mask ", "segm_")}'
        assert (entry['a'], entry['b']) == pytest.approx([100 * some[key] for some in numbers], abs=0.051), key
    for title, table in compared['tables'].items():
        for key, some in zip('ab', details, strict=True):
            expected = {name: value for name, value in some[title].items() if value is not None}
            assert {entry['name']: entry[key] for entry in table} == pytest.approx(expected)
    assert len(compared['metrics']) == 12 and [*compared['tables']] == [*details[0]] and details[0] != details[1]


@pytest.mark.parametrize('kind', OURS)
def test_names_follow_the_classes_whatever_the_order_of_ids(tmp_path, kind):
    settings = write(tmp_path, images=6, ids=(5, 9, 2), names=('owl', 'cat', 'dog'))
    metric = metric_of(settings, kind)
    perfect(metric, settings, wrong=('cat', ))
    assert [*metric.details['box AP by class']] == list(NAMES)
    aps = metric.details['box AP by class']
    assert aps['cat'] == 0 and aps['owl'] == pytest.approx(100) and 0 < aps['dog'] < 100


def test_errors_say_what_was_done_wrong(tmp_path):
    settings = write(tmp_path, images=6)
    metric = metric_of(settings)
    perfect(metric, settings)
    assert set(metric.details['box errors (TIDE)'].values()) == {0} and len(ERRORS) == 8
    perfect(metric, settings, wrong=('cat', ))
    errors = metric.details['box errors (TIDE)']
    assert errors['Cls'] == max(errors[key] for key in ERRORS[:6]) > 10 and errors['Dupe'] == 0


def test_a_class_without_objects_and_a_truth_of_crowds_have_none(tmp_path):
    precision = np.full((10, 101, 2, 4, 3), -1.)
    precision[:, :, 1] = 0.25
    assert class_aps(precision, ['a', 'b']) == {'a': None, 'b': 25}
    settings = write(tmp_path, lambda found: [entry.update(iscrowd=1) for entry in found['annotations']])
    metric = metric_of(settings)
    perfect(metric, settings)
    assert {value for table in metric.details.values() for value in table.values()} == {None}


def test_an_evaluation_of_nothing_leaves_no_details(found, ann_file, tmp_path):
    options = dict(ann_file=ann_file, metric=['bbox', 'segm'])
    for extra in (dict(format_only=True, outfile_prefix=str(tmp_path / 'x')), dict(metric='proposal')):
        evaluator, _ = evaluated(OURS[0], found, samples(found), **options | extra)
        assert details_of(evaluator) == {} and not write_per_image(evaluator, tmp_path / 'file')
    assert not (tmp_path / 'file').exists()


def test_scores_that_are_no_numbers_cost_the_file_and_nothing_else(found, ann_file, tmp_path):
    made = samples(found)
    next(sample for sample in made if len(sample['pred_instances']['scores']))['pred_instances']['scores'][0] = math.nan
    evaluator, _ = evaluated(OURS[0], found, made, ann_file=ann_file)
    assert not write_per_image(evaluator, tmp_path / 'file') and not (tmp_path / 'file').exists()


def test_two_metrics_of_one_title_keep_both():
    one, two = (type('Metric', (), dict(details={'IoU by class': dict(a=value)}))() for value in (1., 2.))
    evaluator = type('Evaluator', (), dict(metrics=[one, object(), two]))()
    assert details_of(evaluator) == {'IoU by class': dict(a=1), 'IoU by class #2': dict(a=2)}
    assert details_of(object()) == {}
