"""Labels mean classes by name, and the metric's file must be about the data set's images: right numbers, or a line."""
import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.registry import init_default_scope

from mmincubation.downstream.coco_truth import compare_all, require_same_data
from mmincubation.errors import ConfigError, DataError
from mmincubation.recovery.data_errors import named_metrics
from mmincubation.registry import METRICS
from tests.helpers.named_coco import BOXES, NAMES, build, each, write

KINDS = ['mmdet.CocoMetric', 'mmincubation.FastCocoMetric']


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def metric_of(settings: dict, kind: str = KINDS[1], classes=NAMES, **options):
    path = f'{settings["data_root"]}/{settings["ann_file"]}'
    metric = METRICS.build(named_metrics(dict(dict(type=kind, ann_file=path, metric='bbox'), **options)))
    metric.dataset_meta = dict(classes=classes)
    return metric


def perfect(metric, settings: dict, wrong: tuple = (), classes=NAMES, images: int | None = None) -> dict:
    """The numbers of a detector that finds all in the first images, but takes a name in `wrong` for the next class."""
    found = json.loads(open(f'{settings["data_root"]}/{settings["ann_file"]}').read())
    names = {c['id']: c['name'] for c in found['categories']}
    for image in found['images'][:images]:
        own = [a for a in found['annotations'] if a['image_id'] == image['id'] and names[a['category_id']] in classes]
        boxes = torch.tensor([a['bbox'] for a in own]).reshape(-1, 4).float()
        boxes[:, 2:] += boxes[:, :2]
        labels = [classes.index(names[a['category_id']]) + (names[a['category_id']] in wrong) for a in own]
        masks = torch.zeros(len(own), image['height'], image['width'], dtype=torch.bool)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = True
        metric.process({}, [dict(img_id=image['id'], ori_shape=(image['height'], image['width']), pred_instances=dict(
            bboxes=boxes, scores=torch.ones(len(own)), labels=torch.tensor(labels, dtype=torch.long), masks=masks))])
    return metric.evaluate(len(found['images']))


ORDERS = {
    'file turned': dict(ids=(3, 2, 1), names=NAMES[::-1]), 'ids turned': dict(ids=(9, 4, 2)), 'as named': {},
    'names turned': dict(names=NAMES[::-1]), 'ids are texts': dict(ids=('c', 'a', 'b')), 'from 0': dict(ids=(0, 1, 2))}


@pytest.mark.parametrize('classes', [NAMES, NAMES[::-1], ('owl', 'cat'), ('dog', )], ids=len)
@pytest.mark.parametrize('order', ORDERS)
def test_labels_of_the_data_set_and_the_metric_follow_the_names(tmp_path, order, classes):
    settings = write(tmp_path, **ORDERS[order]) | dict(metainfo=dict(classes=classes))
    dataset = build(settings)
    found = json.loads((tmp_path / 'a.json').read_text())
    names = {c['id']: c['name'] for c in found['categories']}
    for i, info in enumerate(map(dataset.get_data_info, range(4))):
        own = [names[a['category_id']] for a in found['annotations'] if a['image_id'] == i + 1]
        assert [classes[o['bbox_label']] for o in info['instances']] == [n for n in own if n in classes]
    for kind in KINDS:
        metric = metric_of(settings, kind, classes)
        assert not require_same_data(dataset, metric, 'val')
        assert perfect(metric, settings, classes=classes)['coco/bbox_mAP'] == 1.0


@pytest.mark.parametrize('kind', KINDS)
def test_the_ap_of_a_class_stands_under_its_name(tmp_path, kind):
    """One of the three classes is never found; the file's order, the ids' and the names' are three others."""
    settings = write(tmp_path, images=6, ids=(5, 9, 2), names=('owl', 'cat', 'dog'))
    found = perfect(metric_of(settings, kind, classwise=True), settings, wrong=('cat', ))
    assert found['coco/cat_precision'] == 0 and found['coco/owl_precision'] == 1 and found['coco/dog_precision'] < 1
    both = perfect(metric_of(settings, kind, classwise=True, metric=['bbox', 'segm']), settings, wrong=('cat', ))
    assert [key for key in both if key.endswith('precision')] == [
        f'coco/{what}_{name}_precision' for what in ('bbox', 'segm') for name in NAMES]
    assert {both[f'coco/{what}_owl_precision'] for what in ('bbox', 'segm')} == {1.0}


def test_box_and_mask_ap_of_a_class_are_two_numbers(tmp_path):
    """Masks of half the object: found as boxes, not as masks."""
    settings = write(tmp_path, lambda found: [a.update(segmentation=[a['segmentation'][0][:6]])
                                              for a in found['annotations']])
    found = perfect(metric_of(settings, classwise=True, metric=['bbox', 'segm']), settings)
    assert found['coco/bbox_cat_precision'] == 1 and found['coco/segm_cat_precision'] < 0.2


IDS = dict(text=lambda i: f'img_{i:05}', floats=float, huge=lambda i: 2**70 + i, negative=lambda i: -i,
           zero=lambda i: i - 1)


@pytest.mark.parametrize('kind', IDS)
def test_ids_of_any_type_give_pycocotools_numbers(tmp_path, kind):
    def change(found):
        for entry in found['images'] + found['annotations']:
            entry['id'] = IDS[kind](entry['id'])
        for entry in found['annotations']:
            entry['image_id'] = IDS[kind](entry['image_id'])
            entry.update(iscrowd=False, attributes=dict(occluded=False), score=None)
        for entry in found['images']:  # as CVAT writes them
            entry.update(license=0, flickr_url='', coco_url='', date_captured=0)
        found.update(licenses=[dict(name='', id=0, url='')], info=dict(year='', version=None))
    settings = write(tmp_path, change)
    ours, theirs = (perfect(metric_of(settings, kind, metric=['bbox', 'segm']), settings, ('cat', )) for kind in KINDS)
    assert ours == theirs and 0.2 < ours['coco/bbox_mAP'] < 0.9
    assert perfect(metric_of(settings), settings)['coco/bbox_mAP'] == 1.0





DIFFERENT = {
    'ids': (lambda f: [a.update(id=a['id'] + 50) for a in f['images']] + [
        a.update(image_id=a['image_id'] + 50) for a in f['annotations']], r'image id 1 of .*a.json .*is not in it'),
    'names': (lambda f: [i.update(file_name='x' + i['file_name']) for i in f['images']], 'is another image there'),
    'sizes': (each('images', width=640, height=480), 'is another image there: 0.png, 640 x 480'),
    'category': (lambda f: f['categories'][1].update(name='wolf'), "no category for .1: 'dog'."),
    'unlabelled': (lambda f: f.pop('annotations'), 'has no annotations, so there is nothing to score by'),
    'no masks': (lambda f: [a.pop('segmentation') for a in f['annotations']], "set metric='bbox'"),
    'no boxes': (each('annotations', bbox=[1, 2, 3]), 'boxes that are not four numbers'),
    'twice': (lambda f: f['categories'][2].update(name='dog'), 'categories of one name'),
}


@pytest.mark.parametrize('how', DIFFERENT)
@pytest.mark.parametrize('kind', KINDS)
def test_another_file_than_the_data_sets_is_refused(tmp_path, how, kind):
    change, named = DIFFERENT[how]
    dataset, settings = build(write(tmp_path)), write(tmp_path, change, name='b')
    metric = metric_of(settings, kind, metric=['bbox', 'segm'])
    with pytest.raises(DataError, match=rf'val_evaluator: .*b.json: .*{named}') as raised:
        require_same_data(dataset, metric, 'val')
    assert '\n' not in str(raised.value)


def test_corrected_labels_of_the_same_images_are_scored_and_said(tmp_path):
    dataset = build(write(tmp_path))
    metric = metric_of(write(tmp_path, each('annotations', bbox=[4, 5, 20, 24]), name='b'))
    [line] = require_same_data(dataset, metric, 'val')
    assert 'is not the file of the data set' in line and 'its objects are the truth' in line


@pytest.mark.parametrize('kind', KINDS)
def test_a_part_of_the_images_is_scored_by_its_own_truth(tmp_path, kind):
    settings = write(tmp_path)
    dataset, metric = build(settings, indices=2), metric_of(settings, kind)
    [line] = require_same_data(dataset, metric, 'val')
    assert 'has 4 images, 2 of them are scored' in line
    assert len(dataset) == 2 and perfect(metric, settings, images=2)['coco/bbox_mAP'] == 1.0
    assert perfect(metric_of(settings, kind), settings, images=2)['coco/bbox_mAP'] < 0.7


def test_wrapped_data_sets_are_compared_as_one(tmp_path):
    from mmengine.dataset import ConcatDataset
    first = write(tmp_path)
    half = json.loads((tmp_path / 'a.json').read_text())
    half['images'] = half['images'][:2]
    half['annotations'] = half['annotations'][:4]
    (tmp_path / 'half.json').write_text(json.dumps(half))
    joined = ConcatDataset([dict(type='mmincubation.CheckedDataset', dataset=dict(first, ann_file=name, test_mode=True))
                            for name in ('half.json', 'a.json')])
    assert not require_same_data(joined, metric_of(first), 'val')
    [line] = require_same_data(joined.datasets[0], metric_of(first), 'val')[:1]
    assert '2 of them are scored' in line


def test_a_metric_made_of_mmdets_names_no_ap_wrongly(tmp_path):
    from mmdet.evaluation import CocoMetric
    settings = write(tmp_path, ids=(3, 2, 1))
    own = type('OwnMetric', (CocoMetric, ), {})(ann_file=str(tmp_path / 'a.json'), classwise=True)
    with pytest.raises(DataError, match='classwise=True of OwnMetric would name the APs of classes wrongly'):
        require_same_data(build(settings), own, 'val')
    own.classwise, own.dataset_meta = False, dict(classes=NAMES)
    assert not require_same_data(build(settings), own, 'val') and perfect(own, settings)['coco/bbox_mAP'] == 1.0


def test_joined_data_sets_whose_ids_collide_are_refused(tmp_path):
    from mmengine.dataset import ConcatDataset
    parts = [dict(type='mmincubation.CheckedDataset', dataset=write(tmp_path, name=name)) for name in 'ab']
    joined = ConcatDataset(parts)
    with pytest.raises(DataError, match='image id 1 stands for .*/a/0.png and .*/b/0.png; give each image'):
        require_same_data(joined, metric_of(parts[0]['dataset']), 'val')
    several = SimpleNamespace(metrics=[metric_of(part['dataset']) for part in parts], dataset_prefixes=['a', 'b'])
    assert not compare_all(joined, several, 'val')  # one metric for each part


def test_other_metrics_and_data_sets_are_left_alone(tmp_path):
    settings = write(tmp_path)
    dataset, metric = build(settings), SimpleNamespace(_coco_api=SimpleNamespace(imgs={}))
    assert not require_same_data(dataset, metric, 'val') and not require_same_data([1, 2], metric_of(settings), 'val')
    assert not compare_all(dataset, SimpleNamespace(), 'val')


def test_formatting_needs_no_truth(tmp_path):
    settings = write(tmp_path, lambda found: found.pop('annotations')) | dict(pipeline=[BOXES[0], BOXES[2]])
    dataset = build(settings, 'test_dataloader.dataset')
    metric = metric_of(settings, format_only=True, outfile_prefix=str(tmp_path / 'out'))
    assert len(dataset) == 4 and not require_same_data(dataset, metric, 'test')
    with pytest.raises(DataError, match='test_evaluator: .*nothing to score by; write the predictions with --format'):
        require_same_data(dataset, metric_of(settings), 'test')


def test_a_metric_without_a_file_needs_the_truth_in_the_samples(tmp_path):
    settings = write(tmp_path)
    with pytest.raises(DataError, match='val_evaluator.ann_file is missing: give it that of the data set, .*a.json'):
        require_same_data(build(settings), metric_of(settings, ann_file=None), 'val')
    dataset = build(settings)
    dataset.dataset.ann_file = 'list.txt'  # as of XML
    with pytest.raises(DataError, match="list.txt is no COCO json, .*: add 'instances' to meta_keys of "
                       'PackDetInputs in val_dataloader.dataset.pipeline'):
        require_same_data(dataset, metric_of(settings, ann_file=None), 'val')


def test_nothing_to_measure_is_a_sentence(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('mmincubation.downstream.coco_metric.print_log', lambda text, *_: said.append(text))
    settings = write(tmp_path, each('annotations', iscrowd=1))
    assert perfect(metric_of(settings), settings)['coco/bbox_mAP'] == -1
    assert said[0].startswith('not measured, because the data have no such object: bbox_mAP, bbox_mAP_50')


def test_direct_use_names_what_is_missing(tmp_path):
    settings = write(tmp_path)
    with pytest.raises(ConfigError, match="no category for .1: 'wolf'.; set .* 'cat', 'dog', 'owl'"):
        perfect(metric_of(settings, classes=('cat', 'wolf')), settings)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('options, expected, line', [
    (dict(iou_thrs=[0.5, 0.75]), dict(mAP=1, mAP_50=1, mAP_75=1), None),
    (dict(iou_thrs=0.5), dict(mAP=1, mAP_50=1, mAP_75=-1),
     'bbox_mAP_75, because it needs an IoU of 0.75: add 0.75 to iou_thrs=[0.5]'),
    (dict(proposal_nums=(1, 10, 50)), dict(mAP=-1, mAP_50=1, mAP_75=1),
     'bbox_mAP, because it counts 100 results of an image: add 100 to proposal_nums=[1, 10, 50]')])
def test_what_a_setting_leaves_out_is_said(tmp_path, monkeypatch, kind, options, expected, line):
    said, settings = [], write(tmp_path)
    monkeypatch.setattr('mmincubation.downstream.coco_metric.print_log', lambda text, *_: said.append(text))
    found = perfect(metric_of(settings, kind, metric_items=[*expected], **options), settings)
    assert {key: found[f'coco/bbox_{key}'] for key in expected} == expected
    assert said == ([f'not measured: {line}'] if line else [])
