"""What CocoRules finds in files as others write them: boxes against masks, classes without objects, names, filters."""
import json
import os
import re

import pytest
from mmengine.registry import init_default_scope
from pycocotools import mask as masks

from mmincubation.datasets.annotations import box_reading, is_outside
from mmincubation.errors import DataError
from tests.helpers.named_coco import BOXES, NAMES, STEPS, build, each, write


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


@pytest.fixture
def said(monkeypatch) -> list[str]:
    lines = []
    monkeypatch.setattr('mmincubation.datasets.checked.print_log', lambda text, *_: lines.append(text))
    return lines


def reading(box, corners=(10, 10, 40, 30), kind='polygon', **more) -> str | None:
    x1, y1, x2, y2 = corners
    segment = [[x1, y1, x2, y1, x2, y2, x1, y2]]
    if kind != 'polygon':
        [segment] = masks.frPyObjects(segment, 48, 64)
        segment = dict(segment, counts=segment['counts'].decode())
    if kind == 'counts':
        import numpy as np
        flat = masks.decode(segment).ravel(order='F')
        ends = np.flatnonzero(np.diff(flat, prepend=0)).tolist()
        segment['counts'] = np.diff([0, *ends, flat.size]).tolist()
    return box_reading(dict(bbox=list(box), segmentation=segment, **more), dict(width=64, height=48))


@pytest.mark.parametrize('kind', ['polygon', 'runs', 'counts'])
@pytest.mark.parametrize('box, expected', [
    ((10, 10, 30, 20), 'right'), ((10, 10, 31, 21), 'right'),  # as tools count the last pixel
    ((9.4, 10.6, 30.2, 19.5), 'right'), ((10, 10, 40, 30), 'corners'), ((25, 20, 30, 20), 'other'),  # a centre
    ((.15, .2, .46, .4), 'other'), ((10, 10, 20, 30), 'other')])  # parts of the image; height before width
def test_how_a_box_is_read(box, expected, kind):
    assert reading(box, kind=kind) == expected
    assert reading(box, kind=kind, iscrowd=1) is None


def test_boxes_of_tiny_objects_may_be_rounded():
    assert reading((10, 10, 2, 2), (10.4, 10.4, 11.5, 11.5)) == 'right'
    assert reading((10, 10, 3, 3), (8, 9, 12, 12)) == 'right'


def corners(found: dict) -> None:
    for a in found['annotations']:
        x, y, w, h = a['bbox']
        x, y = x // 4, y // 4
        a['bbox'] = [x, y, x + w, y + h]
        a['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]


def test_two_corners_are_refused_also_where_no_mask_is_used(tmp_path):
    for steps in (STEPS, BOXES):
        with pytest.raises(DataError, match='a.json: boxes that are two corners by their own segmentation .4: '
                                            'annotation 2 of image 1, .*; write x, y, width, height') as raised:
            build(write(tmp_path, corners) | dict(pipeline=steps), 'train_dataloader.dataset')
        assert '\n' not in str(raised.value)


def test_masks_of_a_visible_part_are_said_and_not_refused(tmp_path, said):
    def hide(found):
        found['annotations'][0]['segmentation'] = [[4, 5, 12, 5, 12, 12, 4, 12]]
    assert len(build(write(tmp_path, hide))) == 4
    assert '1 boxes that disagree with their own segmentation: annotation 1 of image 1' in said[0]


def test_other_readings_of_most_boxes_are_refused(tmp_path):
    def turned(found):
        for a in found['annotations']:
            x, y, w, h = a['bbox']
            a['bbox'] = [y, x, h, w]
    with pytest.raises(DataError, match='boxes that disagree with their own segmentation .'):
        build(write(tmp_path, turned))


@pytest.mark.parametrize('whole', [None, [0, 0, 1, 1], [.5, .5, 1, 1.0001]])
def test_boxes_as_parts_of_the_image_are_refused(tmp_path, whole):
    def parts(found):
        for a in found['annotations']:
            a.pop('segmentation')
            a.update(bbox=[a['bbox'][0] / 64, a['bbox'][1] / 48, a['bbox'][2] / 64, a['bbox'][3] / 48], area=0.1)
        if whole:
            found['annotations'][3].update(bbox=whole, area=1)
    with pytest.raises(DataError, match='boxes of a pixel at most, and no others .8: .*write pixels'):
        build(write(tmp_path, parts) | dict(pipeline=BOXES))


def test_one_box_in_pixels_among_tiny_ones_is_enough(tmp_path, said):
    def tiny(found):
        for a in found['annotations'][1:]:
            a.update(bbox=[.1, .2, .5, .6], segmentation=[[.1, .2, .6, .2, .6, .8]], area=.3)
    assert len(build(write(tmp_path, tiny))) == 4 and '7 annotations without a pixel are left out' in said[0]


@pytest.mark.parametrize('change, expected', [
    (each('annotations', iscrowd=1, segmentation=dict(size=[48, 64], counts=[0, 3072])), 'no object of any class'),
    (each('annotations', category_id=2), r'no object of 2 of 3 classes \(cat, owl\)'),
    (lambda found: found.update(annotations=[]), 'no object of any class'),
    (lambda found: found.pop('annotations'), 'no object of any class')])
def test_classes_that_no_object_has_are_a_warning_of_training(tmp_path, said, change, expected):
    dataset = build(write(tmp_path, change), 'train_dataloader.dataset')
    assert len(dataset) == 4
    assert any(re.search(f'train_dataloader.dataset: .*a.json: {expected}', line) for line in said), said


def test_unlabelled_test_data_are_read_and_nothing_is_missed(tmp_path, said):
    dataset = build(write(tmp_path, lambda found: found.pop('annotations')), 'test_dataloader.dataset')
    assert len(dataset) == 4 and not said and dataset[0]['inputs'].shape == (3, 48, 64)


def test_boxes_alone(tmp_path):
    settings = write(tmp_path, lambda found: [a.pop('segmentation') for a in found['annotations']])
    dataset = build(settings | dict(pipeline=BOXES), 'train_dataloader.dataset')
    assert dataset[0]['data_samples'].gt_instances.bboxes.tensor.tolist() == [[4, 5, 24, 29], [34, 20, 56, 38]]
    with pytest.raises(DataError, match='a.json: no annotation has a segmentation; train boxes alone: no with_mask'):
        build(settings, 'train_dataloader.dataset')


NAMING = [
    ('cat', None, "metainfo.classes='cat' is a text; write a tuple, .'cat', ."),
    (NAMES, lambda f: f['categories'][2].update(name='elk'), "classes that the JSON has no category for .1: 'owl'"),
    (('cat', 'dog'), lambda f: f['categories'][2].update(name='cat'), 'categories of one name .1: .cat..; give each'),
    (('cat', 'cat'), None, 'names that occur more than once in metainfo.classes .1: .cat..'),
    (('cat', 'Dog'), None, r"no category for .1: 'Dog'.; set metainfo.classes to .* 'cat', 'dog', 'owl'"),
]


@pytest.mark.parametrize('classes, change, expected', NAMING)
def test_names_of_classes(tmp_path, classes, change, expected):
    with pytest.raises(DataError, match=expected):
        build(write(tmp_path, change) | dict(metainfo=dict(classes=classes)))


@pytest.mark.parametrize('rule, change, expected', [
    (dict(min_size=50), None, r'leaves none of its 4 images: 4 are smaller than min_size, 0 have no object'),
    (dict(filter_empty_gt=True), lambda found: found.update(annotations=[]), '0 are smaller .* 4 have no object')])
def test_a_filter_that_leaves_nothing_is_named(tmp_path, rule, change, expected):
    with pytest.raises(DataError, match=f'filter_cfg=.*{expected}'):
        build(write(tmp_path, change) | dict(filter_cfg=rule), 'train_dataloader.dataset')


SHAPES = [
    (lambda f: f['images'][1].update(width='64'), r'images whose width or height is no number above 0 .1: image 2'),
    (lambda f: f['images'][1].update(height=0), r'images whose width or height is no number above 0 .1: image 2'),
    (lambda f: f['images'][1].update(file_name=7), 'images whose file_name is no text .1: image 2'),
    (lambda f: f['images'][1].update(id=None), r'images whose id is neither a number nor a text .1: images\[1\]'),
    (lambda f: f['annotations'][3].update(id=[1]), r'annotations whose id is neither .*annotations\[3\]'),
    (lambda f: f.update(categories='cat'), 'the JSON has no categories'),
    (lambda f: f['annotations'].append(None), r'annotations without category_id, id, image_id .1: annotations\[8\]')]


@pytest.mark.parametrize('change, expected', SHAPES)
def test_json_of_another_shape(tmp_path, change, expected):
    with pytest.raises(DataError, match=f'a.json: {expected}'):
        build(write(tmp_path, change))


def test_an_absolute_name_inside_of_the_folder(tmp_path):
    folder = os.path.join(tmp_path, 'a')
    settings = write(tmp_path, lambda f: [i.update(file_name=f'{folder}/{i["file_name"]}') for i in f['images']])
    assert build(settings)[0]['data_samples'].img_path == f'{folder}/0.png'
    (tmp_path / 'link').symlink_to(tmp_path)
    assert len(build(settings | dict(data_root=str(tmp_path / 'link')))) == 4
    for name, expected in ((f'{folder}/../b/0.png', True), (folder + 'b/0.png', True), (f'{folder}/c/0.png', False),
                           ('../0.png', True), ('c/0.png', False)):
        assert is_outside(name, folder) is expected, name


def test_a_json_with_a_byte_order_mark(tmp_path):
    settings = write(tmp_path)
    path = tmp_path / 'a.json'
    path.write_text('\ufeff' + json.dumps(json.loads(path.read_text())), encoding='utf-8')
    assert len(build(settings)) == 4


def test_pictures_of_more_pixels_than_pillows_limit(tmp_path):
    from PIL import Image

    from mmincubation.datasets.files import image_fault, image_size
    Image.new('1', (19_000, 10_000)).save(tmp_path / 'big.png')  # Pillow refuses from 179 million
    assert image_size(tmp_path / 'big.png') == (19_000, 10_000) and image_fault(tmp_path / 'big.png') is None
