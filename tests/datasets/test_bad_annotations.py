"""Bad annotations in COCO's format under both policies, and what public COCO has and is not bad."""
import numpy as np
import pytest
from mmengine.registry import init_default_scope

from mmincubation.datasets.annotations import segment_faults
from mmincubation.datasets.checked import CheckedDataset
from mmincubation.errors import DataError
from tests.helpers.damage import BAD, build, change_json, image_file, refuses_and_skips, settings


def first(content) -> dict:
    """An annotation of the image at BAD."""
    return next(a for a in content['annotations'] if a['image_id'] == content['images'][BAD]['id'])


def with_(**keys):
    return lambda content: first(content).update(keys)


def runs(counts):
    """A mask of the image's own size."""
    def change(content):
        image = content['images'][BAD]
        first(content).update(iscrowd=0, segmentation=dict(size=[image['height'], image['width']], counts=counts))
    return change


def _same_id(content):
    """Two annotations of the same image."""
    content['annotations'].append(dict(first(content)))


NAN, INF = float('nan'), float('inf')
ANNOTATIONS = {
    'outside': (with_(bbox=[5, 5, 500, 10]), 'boxes that reach outside their image'),
    'wholly outside': (with_(bbox=[-50, -50, 10, 10]), 'boxes that reach outside their image'),
    'empty': (with_(bbox=[5, 5, 0, 0], area=20), 'empty boxes'),
    'negative': (with_(bbox=[50, 50, -9, -9]), 'boxes of negative size'),
    'nan': (with_(bbox=[NAN, 5, 10, 10]), 'boxes that are not finite'),
    'infinite': (with_(bbox=[5, 5, INF, 10]), 'boxes that are not finite'),
    'short': (with_(bbox=[5, 5, 10]), 'boxes that are not four numbers'),
    'words': (with_(bbox=['a', 'b', 'c', 'd']), 'boxes that are not four numbers'),
    'none': (with_(bbox=None), 'boxes that are not four numbers'),
    'nan area': (with_(area=NAN), 'areas that are no number from 0'),
    'category': (with_(category_id=12), 'annotations with an unknown category_id'),
    'no category': (with_(category_id=None), 'annotations with an unknown category_id'),
    'crowd': (with_(iscrowd=7), 'annotations whose iscrowd is neither 0 nor 1'),
    'no mask': (lambda content: first(content).pop('segmentation'), 'no segmentation'),
    'no area': (lambda content: first(content).pop('area'), 'no area'),
    'empty mask': (with_(segmentation=[], iscrowd=0), 'empty segmentations'),
    'two points': (with_(segmentation=[[1, 1, 9, 9]], iscrowd=0), 'polygons with fewer than three points'),
    'odd': (with_(segmentation=[[1, 1, 9, 9, 1, 9, 4]], iscrowd=0), 'an odd number of coordinates'),
    'huge': (with_(segmentation=[[1, 1, 9, 9, 1, 1e12]], iscrowd=0), 'polygons that reach outside their image'),
    'nan mask': (with_(segmentation=[[1, 1, 9, 9, 1, NAN]], iscrowd=0), 'polygons that are not finite'),
    'wrong points': (with_(segmentation=[[1, 1, 9, 9, 1, 'x']], iscrowd=0), "of a wrong type (segmentation: 'x')"),
    'flat': (with_(segmentation=[1, 1, 9, 9, 1, 9], iscrowd=0), 'flat list: write [[x1, y1, x2, y2, ...]]'),
    'pairs': (with_(segmentation=[[1, 1], [9, 9], [1, 9]], iscrowd=0), '[x, y] pairs: write [[x1, y1, x2, y2, ...]]'),
    'pairs in a list': (with_(segmentation=[[[1, 1], [9, 9], [1, 9]]], iscrowd=0), 'pairs: write [[x1, y1, x2, y2'),
    'runs': (with_(segmentation=dict(size=[4, 4], counts=[16])), 'run-length segmentations of another size'),
    'short runs': (runs([3, 4]), 'run lengths that do not add up'),
    'words for runs': (runs(['a', 'b']), "entries of a wrong type (segmentation: 'a')"),
    'nonsense': (runs('0'), 'run lengths that do not add up'),  # pycocotools gives what memory held
    'not ASCII': (runs('\u00e4\u00f6'), 'run lengths that do not add up'),
    'cut short': (runs('Pn4'), 'run lengths that do not add up'),
    'huge runs': (with_(segmentation=dict(size=[10**6, 10**6], counts=[10**12])), 'of another size'),
    'annotation id': (_same_id, 'annotation ids that occur more than once'),
    'elsewhere': (lambda content: content['images'][BAD].update(
        file_name='../train2017/' + content['images'][BAD]['file_name']), "images outside of the data set's folder"),
    'image size': (lambda content: content['images'][BAD].update(width=161, height=161), '161 x 161'),
}


@pytest.mark.parametrize('how', ANNOTATIONS)
def test_annotations(how, root):
    change, named = ANNOTATIONS[how]
    change_json(root, change)
    path = image_file('detection', root)
    refuses_and_skips('detection', root, path.name, named, workers=(0, ))


def test_annotations_are_refused_before_training(root):
    change_json(root, with_(bbox=[NAN, 5, 10, 10]))
    with pytest.raises(DataError, match='instances_train2017.json: 1 images cannot be used: image 17 '):
        build('detection', root)


def test_mmdet_filters_no_faulty_image_in_silence(root):
    """Its only annotation has no category, so that mmdet takes it for an image without any."""
    change_json(root, lambda content: [a.update(category_id=12) for a in content['annotations']
                                       if a['image_id'] == content['images'][BAD]['id']])
    scope, dataset = settings('detection', root)
    init_default_scope(scope)
    dataset = CheckedDataset(dict(dataset, filter_cfg=dict(filter_empty_gt=True)), data_errors='skip', num_classes=80)
    assert len(list(dataset)) == len(dataset)
    [found] = dataset.recorded.values()
    assert image_file('detection', root).name in found['fault'] and 'unknown category_id' in found['fault']


def test_an_image_id_that_occurs_twice(root):
    def change(content):
        old, new = (content['images'][i]['id'] for i in (BAD + 1, BAD))
        content['images'][BAD + 1]['id'] = new
        for annotation in content['annotations']:
            annotation['image_id'] = new if annotation['image_id'] == old else annotation['image_id']
    change_json(root, change)
    with pytest.raises(DataError, match='1 images cannot be used: image 17 .*image ids that occur more than once'):
        build('detection', root)
    dataset = build('detection', root, 'skip')
    assert [dataset[i]['data_samples'].img_id for i in range(len(dataset))] == [7, 37, 37, 47, 57]


FILES = {
    'category twice': (lambda c: c['categories'][1].update(id=1),
                       'category ids that occur more than once .1: category 1.; give every'),
    'category lost': (lambda c: c['categories'].pop(3),
                      'classes that the JSON has no category for .1: .(airplane|motorcycle)..; set metainfo'),
    'orphans': (with_(image_id=4711),
                r'annotations of an image that is not in the JSON \(1: annotation \d+ of image 4711\)'),
    'no images': (lambda c: c.pop('images'), 'the JSON has no images; give an instances'),
    'no name': (lambda c: c['images'][0].pop('file_name'),
                'images without file_name .1: images.0..; complete or remove them'),
    'no image at all': (lambda c: c.update(images=[], annotations=[]), 'there is no sample in it'),
}


@pytest.mark.parametrize('policy', ['raise', 'skip'])
@pytest.mark.parametrize('how', FILES)
def test_what_no_single_sample_is_to_blame_for_is_always_refused(how, policy, root):
    change, named = FILES[how]
    change_json(root, change)
    with pytest.raises(DataError, match=named) as raised:
        build('detection', root, policy)
    assert '\n' not in str(raised.value)


def test_broken_json(root):
    (root / 'coco/annotations/instances_train2017.json').write_text('{"images": [')
    with pytest.raises(DataError, match='instances_train2017.json cannot be read: JSONDecodeError'):
        build('detection', root, 'skip')


def test_compressed_runs_are_read_as_pycocotools_writes_them():
    from pycocotools import mask
    for seed in range(20):
        pixels = np.random.default_rng(seed).random((90, 70)) > seed / 20
        counts = mask.encode(np.asfortranarray(pixels.astype(np.uint8)))['counts'].decode()
        assert not list(segment_faults(dict(size=[90, 70], counts=counts), False, None))
        assert list(segment_faults(dict(size=[90, 71], counts=counts), False, None))
        assert list(segment_faults(dict(size=[90, 70], counts=counts[:-1]), False, None))


def test_what_public_coco_has_is_no_fault(root):
    """Objects of no area (train2017 has two), boxes a rounding error outside, and classes that are not used."""
    def change(content):
        first(content).update(bbox=[9.65, 8.33, 1.03, 0.0], area=0.0, iscrowd=0,
                              segmentation=[[9.65, 8.33, 9.65, 8.33, 10.68, 8.33, 10.68, 8.33]])
        image = content['images'][BAD + 1]
        box = next(a for a in content['annotations'] if a['image_id'] == image['id'])
        box['bbox'] = [0, 0, image['width'] + 0.01, image['height'] + 0.01]
        content['categories'].append(dict(id=91, name='not used'))
        content['annotations'].append(dict(box, id=10**6, category_id=91))
    before = len(build('detection', root)[BAD]['data_samples'].gt_instances)
    change_json(root, change)
    dataset = build('detection', root)
    assert len(list(dataset)) == 6
    assert len(dataset[BAD]['data_samples'].gt_instances) == before - 1
