"""check.py reads COCO's JSON as a run does: the same count of images, the same faults, the same evaluator."""
import json

import pytest
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmincubation.check.data import report_data
from mmincubation.check.report import Report
from mmincubation.check.sampling import Sampling
from mmincubation.errors import DataError
from mmincubation.recovery.data_errors import _wrapped
from tests.helpers.named_coco import BOXES, STEPS, build, each, write
from tests.helpers.turned import turn


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def check(evaluator=None, **datasets) -> tuple[dict, list[str], str]:
    """(images of each mode, problems, the section's lines)."""
    report = Report()
    report.section('Data')
    loaders = {f'{mode}_dataloader': dict(dataset=dataset) for mode, dataset in datasets.items()}
    evaluators = {f'{mode}_evaluator': evaluator for mode in datasets if evaluator and mode != 'train'}
    cfg = Config(dict(default_scope='mmdet', model=dict(), **loaders, **evaluators))
    images = report_data(cfg, report, Sampling())
    return images, [str(problem) for problem in report.problems], '\n'.join([*report.sections[0][1], *report.warnings])


def rare(found: dict) -> None:
    """One owl among cats."""
    for a in found['annotations']:
        a['category_id'] = 3 if a['id'] == 1 else 1 + a['id'] % 2


WRAPPED = {
    'plain': lambda d: d,
    'repeated': lambda d: dict(type='RepeatDataset', times=10, dataset=d),
    'balanced': lambda d: dict(type='ClassBalancedDataset', oversample_thr=0.9, dataset=d),
    'joined': lambda d: dict(type='ConcatDataset', datasets=[d, dict(d, indices=3)]),
    'part': lambda d: dict(d, indices=2),
    'last': lambda d: dict(d, indices=-1),
    'filtered': lambda d: dict(d, filter_cfg=dict(filter_empty_gt=True), metainfo=dict(classes=('owl', ))),
    'nested': lambda d: dict(type='RepeatDataset', times=3, dataset=dict(type='ConcatDataset', datasets=[
        d, dict(type='RepeatDataset', times=2, dataset=d)])),
    'mosaic': lambda d: dict(type='MultiImageMixDataset', dataset=d, pipeline=[dict(type='Resize', scale=(8, 8))])}


@pytest.mark.parametrize('how', WRAPPED)
def test_the_images_of_an_epoch_are_those_that_the_loader_gives(tmp_path, how):
    settings = WRAPPED[how](write(tmp_path, rare))
    images, problems, _ = check(train=settings)
    run = DATASETS.build(_wrapped(settings, dict(place='train_dataloader.dataset')))
    assert not problems and images == dict(train=len(run))
    expected = dict(plain=4, repeated=40, joined=7, part=2, last=1, filtered=1, nested=36, mosaic=4)
    assert images['train'] == expected.get(how, len(run)) and (how != 'balanced' or len(run) > 4)


def test_wrappers_that_cannot_be_built_are_a_problem(tmp_path):
    images, problems, _ = check(train=dict(type='RepeatDataset', times='ten', dataset=write(tmp_path)))
    assert not images and 'train_dataloader.dataset: cannot be built (TypeError: ' in problems[0]


SAME = {
    'text': (None, dict(metainfo=dict(classes='cat')), "metainfo.classes='cat' is a text"),
    'twice': (lambda f: f['categories'][2].update(name='cat'), dict(metainfo=dict(classes=('cat', 'dog'))),
              'categories of one name'),
    'filter': (None, dict(filter_cfg=dict(min_size=500)), 'leaves none of its 4 images'),
    'boxes': (lambda f: [a.pop('segmentation') for a in f['annotations']], {}, 'no annotation has a segmentation'),
    'box': (lambda f: f['annotations'][0].pop('segmentation'), {}, 'no segmentation'),
    'orphans': (lambda f: f['images'].pop(), {}, 'annotations of an image that is not in the JSON'),
    'nan': (lambda f: f['annotations'][0].update(area=float('nan')), {}, 'areas that are no number from 0'),
    'shape': (lambda f: f['images'][0].pop('width'), {}, 'images without width'),
}


@pytest.mark.parametrize('how', SAME)
def test_check_and_the_run_say_the_same(tmp_path, how):
    change, more, expected = SAME[how]
    settings = write(tmp_path, change) | more
    with pytest.raises(DataError, match=expected.replace('(', '.')):
        build(settings, 'train_dataloader.dataset')
    _, [problem, *_], _ = check(train=settings)
    assert problem.startswith('train_dataloader.dataset: ') and expected in problem


GOOD = {
    'boxes': (lambda f: [a.pop('segmentation') for a in f['annotations']], dict(pipeline=BOXES)),
    'subset': (None, dict(metainfo=dict(classes=('dog', )))),
    'texts': (lambda f: [i.update(id=f'n{i["id"]}') for i in f['images']] + [
        a.update(image_id=f'n{a["image_id"]}', attributes=dict(occluded=True)) for a in f['annotations']], {}),
    'subclass': (None, dict(pipeline=STEPS, return_classes=True)),
}


def test_images_that_a_tag_turns_in_place_are_told(tmp_path):
    settings = write(tmp_path)
    assert turn(next(tmp_path.rglob('*.png'))) in check(train=settings)[2]


@pytest.mark.parametrize('how', GOOD)
def test_good_files_have_no_problem(tmp_path, how):
    change, more = GOOD[how]
    settings = write(tmp_path, change) | more
    evaluator = dict(type='CocoMetric', ann_file=str(tmp_path / 'a.json'), metric='bbox')
    images, problems, said = check(evaluator, train=settings, val=dict(settings, test_mode=True))
    assert images == dict(train=4, val=4) and not problems and 'warning' not in said


def test_classes_without_an_object(tmp_path):
    settings = write(tmp_path, each('annotations', category_id=1))
    _, problems, said = check(train=settings, val=dict(settings, test_mode=True))
    assert problems == ['train_dataloader.dataset: no object of 2 of 3 classes (dog, owl); crowds (iscrowd=1) do not '
                        'count; label some, or leave the class out of metainfo.classes']
    assert 'val_dataloader.dataset: no object of 2 of 3 classes (dog, owl)' in said
    other = write(tmp_path, lambda f: [a.update(category_id=2 + a['id'] % 2) for a in f['annotations']], name='b')
    assert not check(train=dict(type='ConcatDataset', datasets=[settings, other]))[1]  # together they have all


def test_a_fault_has_no_false_consequences(tmp_path):
    faulty = write(tmp_path, each('annotations', area=-1))
    images, problems, said = check(val=dict(faulty, test_mode=True))
    assert len(problems) == 1 and 'areas that are no number from 0 (8: ' in problems[0]
    assert 'no object of any class' not in said and images == dict(val=4)
    for refused in (write(tmp_path, name='b') | dict(metainfo=dict(classes=('wolf', ))), write(tmp_path, name='c')):
        path = tmp_path / refused['ann_file']
        if path.name == 'c.json':
            path.write_text('{')
        images, problems, said = check(train=refused)
        assert len(problems) == 1 and images == {} and f'train_dataloader.dataset: {path}: ' in said


def test_the_last_line_says_what_was_not_looked_at():
    for kind, last in (('mmdet.VOCDataset', 'No problem found in what was looked at; a part of the data was not.'),
                       (None, 'No problem found: this would run here.')):
        report = Report()
        report.section('Data')
        loader = dict(val_dataloader=dict(dataset=dict(type=kind))) if kind else {}
        report_data(Config(dict(default_scope='mmdet', model=dict(), **loader)), report, Sampling())
        assert report.text().splitlines()[-1] == last


@pytest.mark.parametrize('kind', ['CocoMetric', 'mmincubation.FastCocoMetric'])
def test_the_evaluators_file(tmp_path, kind):
    settings = dict(write(tmp_path), test_mode=True)
    write(tmp_path, lambda f: [i.update(file_name='x' + i['file_name']) for i in f['images']], name='b')
    evaluator = dict(type=kind, ann_file=str(tmp_path / 'b.json'), metric=['bbox', 'segm'])
    [problem] = check([evaluator], val=settings)[1]
    assert problem.startswith(f'val_evaluator: {tmp_path}/b.json: image id 1 of {tmp_path}/a.json')
    evaluator['ann_file'] = str(tmp_path / 'a.json')
    assert not check(evaluator, val=settings)[1]
    assert 'val_evaluator: ' in check(evaluator, val=dict(settings, indices=2))[2]
    assert not check(dict(evaluator, ann_file=str(tmp_path / 'no.json')), val=settings)[1]  # the config's own problem


def test_unlabelled_test_data(tmp_path):
    settings = dict(write(tmp_path, lambda f: f.pop('annotations')), test_mode=True, pipeline=[STEPS[0], STEPS[2]])
    evaluator = dict(type='mmincubation.FastCocoMetric', ann_file=str(tmp_path / 'a.json'))
    images, [problem], _ = check(evaluator, test=settings)
    assert images == dict(test=4) and 'write the predictions with --format-only' in problem
    assert not check(evaluator | dict(format_only=True, outfile_prefix='x'), test=settings)[1]


def test_a_missing_image_is_named_by_its_place_in_the_folder(tmp_path):
    settings = write(tmp_path)
    content = json.loads((tmp_path / 'a.json').read_text())
    content['images'][1]['file_name'] = str(tmp_path / 'a/lost.png')
    (tmp_path / 'a.json').write_text(json.dumps(content))
    assert 'images in the JSON without a file (1: image 2: lost.png)' in check(train=settings)[1][0]
