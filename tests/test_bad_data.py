"""Every kind of bad data under both policies: a line that names it, or the next good sample, counted."""
import io
import json
import warnings
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from mmincubation.datasets.annotations import segment_faults
from mmincubation.datasets.checked import CheckedDataset
from mmincubation.engine.config_check import ConfigError
from mmincubation.engine.data_errors import DataError, check_policy, check_samples, read_records
from tests.forked import Run, trained
from tests.resumed import assert_same_run, killed_and_resumed
from tests.synthetic_ade import write_ade
from tests.synthetic_coco import write_coco
from tests.test_downstream_tools import data, short_config  # noqa: F401  a fixture
from tests.test_exact_resume import ITERATION, drawing
from tests.toy import e2e_config, incubation_config, write_images

BAD = 1  # the index that is damaged


def gradient(height: int = 64, width: int = 96) -> np.ndarray:
    """A smooth picture, so that JPEG changes little."""
    across = np.linspace(0, 255, width).astype(np.uint8)
    return np.stack([np.tile(across, (height, 1)), np.tile(across[::-1], (height, 1)),
                     np.full((height, width), 128, np.uint8)], -1)


def encoded(image: Image.Image, kind: str = 'JPEG', **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG = encoded(Image.fromarray(gradient()), quality=95)
PNG = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)), 'PNG')
UNREADABLE = {
    'missing': None, 'empty': b'', 'text': b'no picture', 'header': JPEG[:100], 'half': JPEG[:len(JPEG) // 2],
    'nearly all': JPEG[:-30], 'half png': PNG[:len(PNG) // 2],
    'flipped png': PNG[:2000] + bytes(50) + PNG[2050:],
    'zeros after half': JPEG[:len(JPEG) // 2] + bytes(len(JPEG) // 2)}


def put(path, content: bytes | None) -> None:
    path.unlink() if content is None else path.write_bytes(content)


@pytest.fixture(scope='module')
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp('clean')
    write_images(root / 'folders')
    write_coco(root / 'coco')
    write_ade(root / 'ade')
    return root


@pytest.fixture
def root(clean, tmp_path):
    from shutil import copytree
    return copytree(clean, tmp_path / 'data')


LOAD = dict(type='LoadImageFromFile')


def settings(task: str, root) -> tuple[str, dict]:
    """(default scope, data set) of a task."""
    if task == 'classification':
        return 'mmengine', dict(type='mmincubation.ImageFolder', root=str(root / 'folders'))
    if task == 'detection':
        return 'mmdet', dict(
            type='CocoDataset', data_root=str(root / 'coco'), ann_file='annotations/instances_train2017.json',
            data_prefix=dict(img='train2017/'), pipeline=[
                LOAD, dict(type='LoadAnnotations', with_bbox=True, with_mask=True), dict(type='PackDetInputs')])
    return 'mmseg', dict(
        type='ADE20KDataset', data_root=str(root / 'ade'),
        data_prefix=dict(img_path='images/training', seg_map_path='annotations/training'), pipeline=[
            LOAD, dict(type='LoadAnnotations', reduce_zero_label=True),
            dict(type='RandomCrop', crop_size=(32, 32)), dict(type='PackSegInputs')])


def build(task: str, root, policy: str = 'raise', **more) -> CheckedDataset:
    scope, dataset = settings(task, root)
    init_default_scope(scope)
    classes = dict(classification=3, detection=80, segmentation=150)[task]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return DATASETS.build(dict(type='mmincubation.CheckedDataset', dataset=dataset, num_classes=classes,
                                   place='train_dataloader.dataset', data_errors=policy, **more))


def image_file(task: str, root, index: int = BAD):
    folder, pattern = dict(classification=('folders/0', '*.png'), detection=('coco/train2017', '*.jpg'),
                           segmentation=('ade/images/training', '*.jpg'))[task]
    return sorted((root / folder).glob(pattern))[index]


def names(task: str, samples) -> list:
    """What tells samples apart."""
    if task == 'classification':
        return [int(sample['inputs'].sum()) for sample in samples]
    return [sample['data_samples'].img_path for sample in samples]


def refuses_and_skips(task: str, root, *named: str, index: int = BAD, workers: tuple = (0, 2)) -> None:
    """The sample at `index` is a DataError in one line, or replaced by the one behind it and recorded once."""
    with pytest.raises(DataError) as raised:
        list(build(task, root))
    for word in ('train_dataloader.dataset', *named):
        assert word in str(raised.value), str(raised.value)
    assert '\n' not in str(raised.value)
    for count in workers:
        records = str(root / f'run{count}')
        dataset = build(task, root, 'skip', records=records)
        loader = DataLoader(dataset, batch_size=None, num_workers=count, persistent_workers=count > 0)
        for _ in range(2):
            seen = names(task, loader)
            assert len(seen) == len(dataset)
            assert seen[index] == seen[index + 1]
            assert len(set(seen)) == len(seen) - 1
        loader._iterator = None  # torch waits 10 s for workers that the garbage collector has to find
        [found] = read_records(records)
        assert found['index'] == index and all(word in found['fault'] for word in named)


TASKS = ['classification', 'detection', 'segmentation']


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('how', UNREADABLE)
def test_unreadable_images(task, how, root):
    if how == 'missing' and task == 'segmentation':
        return  # the list of images is the folder's; a missing label is below
    path = image_file(task, root)
    dataset = build(task, root)
    put(path, UNREADABLE[how])
    if how == 'missing' and task == 'classification':  # gone after the folder was read
        with pytest.raises(DataError, match=f'sample {BAD}: {path} cannot be read as an image'):
            dataset[BAD]
        return
    refuses_and_skips(task, root, f'sample {BAD}', str(path), workers=(0, 2) if how == 'half' else (0, ))


@pytest.mark.parametrize('cut', [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize('progressive', [False, True])
def test_a_truncated_jpeg_is_never_filled_with_grey(cut, progressive, root):
    """OpenCV 4 does fill it; the version of requirements.txt does not, and this holds it."""
    content = encoded(Image.fromarray(gradient(480, 640)), quality=90, progressive=progressive)
    path = image_file('segmentation', root)
    path.write_bytes(content[:int(cut * len(content))])
    with pytest.raises(DataError, match=f'{path}: truncated image; correct it, or .*data_errors=skip'):
        build('segmentation', root)[BAD]


def variants() -> dict[str, tuple[bytes, np.ndarray, int]]:
    """(file, RGB pixels it must give, tolerance) of pictures that are no plain 8-bit RGB."""
    rgb = gradient()
    grey = np.repeat(rgb[..., :1], 3, 2)
    wide = dict(grey=rgb[..., 0], colour=rgb[..., ::-1])
    sixteen = {k: cv2.imencode('.png', v.astype(np.uint16) * 256 + 77)[1].tobytes() for k, v in wide.items()}
    palette = Image.fromarray(rgb).convert('P')
    return {
        'cmyk': (encoded(Image.fromarray(rgb).convert('CMYK'), quality=95), rgb, 6),
        'grey jpeg': (encoded(Image.fromarray(rgb[..., 0]), quality=95), grey, 3),
        'grey png': (encoded(Image.fromarray(rgb[..., 0]), 'PNG'), grey, 0),
        '16 bits grey': (sixteen['grey'], grey, 0), '16 bits colour': (sixteen['colour'], rgb, 0),
        'palette': (encoded(palette, 'PNG'), np.asarray(palette.convert('RGB')), 0),
        'transparent': (encoded(Image.fromarray(np.dstack([rgb, rgb[..., 0]])), 'PNG'), rgb, 0),
        'one pixel': (encoded(Image.fromarray(rgb[:1, :1]), 'PNG'), rgb[:1, :1], 0)}


@pytest.mark.parametrize('how', variants())
def test_uncommon_images_become_rgb(how, root):
    content, expected, tolerance = variants()[how]
    path = image_file('classification', root)
    path.write_bytes(content)
    seen = build('classification', root)[BAD]['inputs'].numpy().transpose(1, 2, 0)
    assert seen.shape == expected.shape and np.abs(seen.astype(int) - expected).max() <= tolerance
    for task in ('detection', 'segmentation'):
        if (task, how) == ('segmentation', 'one pixel'):
            continue
        image_file(task, root).write_bytes(content)
        if task == 'detection':
            change_image(root, height=expected.shape[0], width=expected.shape[1])
        else:
            Image.fromarray(np.ones(expected.shape[:2], np.uint8)).save(label_file(root))
        dataset = build(task, root)
        dataset.pipeline.transforms[:] = [t for t in dataset.pipeline.transforms if 'Crop' not in type(t).__name__]
        seen = dataset[BAD]['inputs'].numpy()[::-1].transpose(1, 2, 0)  # OpenCV's BGR
        assert seen.shape == expected.shape and np.abs(seen.astype(int) - expected).max() <= tolerance


def test_pixels_without_a_range_are_refused(root):
    path = image_file('classification', root)
    Image.fromarray(np.ones((8, 8), np.float32)).save(path, 'TIFF')
    refuses_and_skips('classification', root, str(path), '32 bits (mode F)', workers=(0, ))


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_an_orientation_tag_that_turns_the_image_away_from_its_annotations(task, root):
    exif = Image.Exif()
    exif[0x112] = 6
    path = image_file(task, root)
    Image.open(path).save(path, exif=exif)
    refuses_and_skips(task, root, str(path), workers=(0, ))


def label_file(root, index: int = BAD):
    return sorted((root / 'ade/annotations/training').glob('*.png'))[index]


def relabel(change):
    def harm(root):
        path = label_file(root)
        Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)
    return harm


def _stray(value):
    def change(labels):
        labels[0, 0] = value
        return labels
    return relabel(change)


LABELS = {
    'just above': (_stray(151), 'no class (0..149, 255 ignored): 150'),
    'far above': (_stray(254), 'no class (0..149, 255 ignored): 253'),
    'smaller': (relabel(lambda labels: labels[:-3]), 'labels of shape (55, 41), its image has (58, 41)'),
    'larger': (relabel(lambda labels: np.pad(labels, 2)), 'labels of shape (62, 45)'),
    'colours': (relabel(lambda labels: np.dstack([labels] * 3)), 'labels of shape (58, 41, 3)'),
    '16 bits': (relabel(lambda labels: labels.astype(np.uint16) + 256), 'a label picture of 16 bits'),
    'empty': (lambda root: label_file(root).write_bytes(b''), 'empty file'),
    'truncated': (lambda root: label_file(root).write_bytes(label_file(root).read_bytes()[:60]), 'truncated image'),
}


@pytest.mark.parametrize('how', LABELS)
def test_label_maps(how, root):
    harm, named = LABELS[how]
    harm(root)
    refuses_and_skips('segmentation', root, str(label_file(root)), named, workers=(0, ))


def test_a_missing_label_map(root):
    path = label_file(root)
    path.unlink()
    with pytest.raises(DataError, match=f'sample {BAD}: {path}: missing file'):
        build('segmentation', root)[BAD]
    dataset = build('segmentation', root, 'skip')
    assert names('segmentation', [dataset[BAD]]) == names('segmentation', [dataset[BAD + 1]])


def test_label_maps_with_all_classes_and_255_are_right(root):
    values = np.resize(np.r_[0:151, 255].astype(np.uint8), (58, 41))
    Image.fromarray(values).save(label_file(root))
    seen = build('segmentation', root)
    seen.pipeline.transforms.pop(2)
    labels = seen[BAD]['data_samples'].gt_sem_seg.data.numpy()
    assert sorted(np.unique(labels)) == [*range(150), 255]


def change_json(root, change) -> None:
    path = root / 'coco/annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_image(root, **keys) -> None:
    """Change the image at BAD and give it the whole image as only object."""
    def change(content):
        image = content['images'][BAD]
        image.update(keys)
        width, height = image['width'], image['height']
        for i, annotation in enumerate(a for a in content['annotations'] if a['image_id'] == image['id']):
            annotation.update(iscrowd=0, ignore=i > 0, bbox=[0, 0, width, height], area=width * height, segmentation=[
                [0, 0, width, 0, width, height, 0, height]])
    change_json(root, change)


def test_one_pixel_of_labels(root):
    """mmseg makes a number of it, which it then cannot index."""
    for path in (image_file('segmentation', root), label_file(root)):
        Image.fromarray(np.ones((1, 1), np.uint8)).save(path)
    refuses_and_skips('segmentation', root, str(label_file(root)), workers=(0, ))


@pytest.mark.parametrize('shape', [(1, 7), (7, 1)])
def test_label_maps_with_a_side_of_one_pixel(shape, root):
    """mmseg squeezes it away."""
    for path in (image_file('segmentation', root), label_file(root)):
        Image.fromarray(np.full(shape, 9, np.uint8)).save(path)
    labels = build('segmentation', root)[BAD]['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, *shape) and (labels == 8).all()


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
    'wrong points': (with_(segmentation=[[1, 1, 9, 9, 1, 'x']], iscrowd=0), 'entries of a wrong type'),
    'runs': (with_(segmentation=dict(size=[4, 4], counts=[16])), 'run-length segmentations of another size'),
    'short runs': (runs([3, 4]), 'run lengths that do not add up'),
    'words for runs': (runs(['a', 'b']), 'entries of a wrong type'),
    'nonsense': (runs('0'), 'run lengths that do not add up'),  # pycocotools gives what memory held
    'not ASCII': (runs('\u00e4\u00f6'), 'run lengths that do not add up'),
    'cut short': (runs('Pn4'), 'run lengths that do not add up'),
    'huge runs': (with_(segmentation=dict(size=[10**6, 10**6], counts=[10**12])), 'of another size'),
    'annotation id': (_same_id, "occurs twice, or one of its annotations' ids"),
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
    with pytest.raises(DataError, match='1 images cannot be used: image 17 .*image id 17 occurs twice'):
        build('detection', root)
    dataset = build('detection', root, 'skip')
    assert [dataset[i]['data_samples'].img_id for i in range(len(dataset))] == [7, 37, 37, 47, 57]


FILES = {
    'category twice': (lambda c: c['categories'][1].update(id=1), 'category ids that occur twice'),
    'category lost': (lambda c: c['categories'].pop(3), 'has no category airplane|has no category motorcycle'),
    'orphans': (with_(image_id=4711), '1 annotations of an image that is not in it'),
    'no images': (lambda c: c.pop('images'), 'there is no sample in it'),
    'no name': (lambda c: c['images'][0].pop('file_name'), "cannot be read: KeyError: 'file_name'"),
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


def test_a_clean_data_set_is_the_stock_one_sample_for_sample(root):
    for task in ('detection', 'segmentation'):
        scope, stock = settings(task, root)
        stock['pipeline'] = [t for t in stock['pipeline'] if 'Crop' not in t['type']]
        init_default_scope(scope)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            plain = DATASETS.build(stock)
            checked = DATASETS.build(dict(type='mmincubation.CheckedDataset', dataset=stock))
        assert len(plain) == len(checked) and plain.metainfo == checked.metainfo
        assert plain.get_data_info(2) == checked.get_data_info(2)
        for a, b in zip(plain, checked, strict=True):
            assert (a['inputs'] == b['inputs']).all()
            a, b = a['data_samples'], b['data_samples']
            assert a.metainfo == b.metainfo
            if task == 'detection':
                assert (a.gt_instances.bboxes.tensor == b.gt_instances.bboxes.tensor).all()
                assert (a.gt_instances.masks.masks == b.gt_instances.masks.masks).all()
                assert (a.gt_instances.labels == b.gt_instances.labels).all()
            else:
                assert (a.gt_sem_seg.data == b.gt_sem_seg.data).all()


def test_a_crop_without_objects_draws_the_same_image_anew(root):
    """BaseDataset would take another image at random."""
    dataset = build('detection', root)
    answers = iter([None, None, 'third'])
    dataset.pipeline.transforms[-1] = lambda results: next(answers) and results
    assert dataset[BAD]['img_path'].endswith(image_file('detection', root).name)
    dataset.pipeline.transforms[-1] = lambda results: None
    with pytest.raises(DataError, match=f'{image_file("detection", root)}: its pipeline returned nothing, 10 times'):
        dataset[BAD]


def test_a_broken_transform_is_told_with_its_place(root):
    dataset = build('detection', root)
    dataset.pipeline.transforms[-1] = lambda results: results['nothing']
    with pytest.raises(DataError, match=r"KeyError: 'nothing' \(test_bad_data.py:\d+\)"):
        dataset[BAD]


def test_labels_of_classification(root):
    scope, dataset = settings('classification', root)
    with pytest.raises(DataError, match='3 classes, the model has num_classes=2; make them equal'):
        CheckedDataset(dataset, num_classes=2)


def test_a_row_of_an_arrow_folder(root):
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn
    content = [dict(bytes=b, path=None) for b in (JPEG, JPEG[:len(JPEG) // 2], PNG)]
    Dataset.from_dict(dict(image=content, label=[0, 1, -1]), features=Features(
        image=ImageColumn(), label=ClassLabel(names=['a', 'b']))).save_to_disk(str(root / 'rows'))
    settings = dict(type='mmincubation.HFImages', root=str(root / 'rows'))
    with pytest.raises(DataError, match='1 samples have a label that is no class, first .*rows, row 2: -1'):
        CheckedDataset(settings)
    Dataset.from_dict(dict(image=content[:2], label=[0, 1]), features=Features(
        image=ImageColumn(), label=ClassLabel(names=['a', 'b']))).save_to_disk(str(root / 'two'))
    settings['root'] = str(root / 'two')
    with pytest.raises(DataError, match='sample 1: .*two, row 1 cannot be read as an image'):
        CheckedDataset(settings)[1]
    assert CheckedDataset(settings, data_errors='skip')[1]['labels'] == 0  # behind the last comes the first


def test_the_limit_counts_over_workers_and_ranks(root, tmp_path, monkeypatch):
    folder = tmp_path / 'run'
    for i in (0, 3, 5):
        put(image_file('detection', root, i), b'')
    for rank in (0, 1):
        monkeypatch.setattr('mmincubation.datasets.checked.get_rank', lambda rank=rank: rank)
        dataset = build('detection', root, 'skip', max_data_errors=3, records=str(folder))
        indices = range(rank * 3, rank * 3 + 3)
        list(DataLoader(dataset, batch_size=None, sampler=indices, num_workers=2))
    assert [r['index'] for r in read_records(folder)] == [0, 3, 5]
    assert len(list(folder.iterdir())) == 2
    dataset = build('detection', root, 'skip', max_data_errors=2, records=str(folder))
    with pytest.raises(DataError, match='more than max_data_errors=2 .*sample 0: .*sample 3: .*sample 5: '):
        dataset[0]
    (folder / 'data_errors.rank0.jsonl').open('ab').write(b'{"data": "tra')  # a kill in the middle of a line
    assert len(read_records(folder)) == 3


def test_no_good_sample_at_all(root):
    for path in (root / 'ade/images/training').glob('*.jpg'):
        path.write_bytes(b'')
    with pytest.raises(DataError, match='none of its 4 samples can be used'):
        build('segmentation', root, 'skip')[0]


def test_the_policy_is_checked():
    with pytest.raises(ConfigError, match="data_errors='ignore': choose one of raise, skip"):
        check_policy(e2e_config('', '', data_errors='ignore'))
    with pytest.raises(ConfigError, match='max_data_errors=0: give a number of samples, 1 or more'):
        check_policy(e2e_config('', '', max_data_errors=0))


def wrapped(cfg) -> dict:
    """The data sets that a runner would build."""
    runner = SimpleNamespace(cfg=cfg, work_dir='run', **{
        f'_{kind}_dataloader': cfg[f'{kind}_dataloader'] for kind in ('train', 'val', 'test')})
    before = cfg.pretty_text
    check_samples(runner, 'train', 'val', 'test')
    assert cfg.pretty_text == before
    return {kind: getattr(runner, f'_{kind}_dataloader')['dataset'] for kind in ('train', 'val', 'test')}


def test_validation_and_test_always_raise():
    found = wrapped(e2e_config('', '', data_errors='skip'))
    assert {kind: d['data_errors'] for kind, d in found.items()} == dict(train='skip', val='raise', test='raise')
    assert {d['dataset'].type for d in found.values()} == {'mmincubation.ImageFolder'}


def test_wrapped_data_sets_are_checked_inside():
    cfg, inner = e2e_config('', ''), dict(type='A')
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=dict(
        type='ConcatDataset', datasets=[inner, inner]))
    found = wrapped(cfg)['train']['dataset']['datasets']
    assert [d['place'] for d in found] == [f'train_dataloader.dataset.dataset.datasets.{i}' for i in (0, 1)]


BOTH = [11, 21]  # indices of the damaged images below


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    """A folder with configs that draw in two persistent workers, and two damaged images in their training data."""
    folder = tmp_path_factory.mktemp('toy')
    write_images(folder / 'images')
    (folder / 'images/1/3.png').write_bytes(b'')
    (folder / 'images/2/5.png').write_bytes(PNG[:100])
    write_images(folder / 'val')
    skip = dict(data_errors='skip')
    cfgs = dict(stop=e2e_config(folder / 'images', 'run'), skip=e2e_config(folder / 'images', 'run', **skip),
                phases=incubation_config(folder / 'images', 'run', **skip))
    for name, cfg in cfgs.items():
        drawing(cfg).log_level = 'INFO'
        for kind in ('val', 'test'):
            cfg[f'{kind}_dataloader'].dataset.root = str(folder / 'val')
        cfg.dump(folder / f'{name}.py')
    return folder


def stops(folder, *args, tool: str = 'train') -> str:
    """The one line of a tool that stops."""
    run = Run(folder / 'out', tool, *args)
    code, text = run.code(), run.text()
    lines = [line for line in text.splitlines() if line.startswith('error: ')]
    assert code == 2 and len(lines) == 1 and 'Traceback' not in text, text
    return lines[0]


def skipped(work_dir) -> dict:
    return json.loads((work_dir / 'result.json').read_text())['data_errors']


def indices(work_dir) -> list[int]:
    return [entry['index'] for entry in skipped(work_dir)['first']]


@pytest.fixture(scope='module')
def whole(toy):
    """Work dir of a run that skips."""
    assert trained(toy / 'skip.py', toy / 'whole')
    return toy / 'whole'


def test_skipped_samples_are_reported(whole):
    assert skipped(whole)['skipped'] == 2 and indices(whole) == BOTH
    assert '2/5.png cannot be read' in skipped(whole)['first'][1]['fault']
    assert '2 samples of the training data were skipped' in (whole.parent / 'rank_0').read_text()


def test_a_killed_and_resumed_run_has_the_same_substitutes(toy, whole, tmp_path):
    killed_and_resumed(toy / 'skip.py', tmp_path / 'killed', [dict(kill_at=f'{ITERATION}:{at}') for at in (2, 6)])
    assert_same_run(tmp_path / 'killed', whole)
    assert skipped(tmp_path / 'killed') == skipped(whole)


def test_a_run_that_a_sample_has_stopped_goes_on_with_skip(toy, whole, tmp_path):
    """As the message says, without --allow-changed."""
    images, work_dir = toy / 'images', tmp_path / 'stopped'
    assert not trained(toy / 'skip.py', work_dir, kill_at=f'{ITERATION}:5')
    error = stops(tmp_path, toy / 'stop.py', '--work-dir', work_dir, '--resume')
    assert f'{images}/1/3.png cannot be read' in error or f'{images}/2/5.png cannot be read' in error
    assert 'train_dataloader.dataset, sample ' in error and '--cfg-options data_errors=skip' in error
    assert trained(toy / 'skip.py', work_dir)
    assert_same_run(work_dir, whole)


def test_the_counts_of_an_earlier_run_in_the_work_dir_are_forgotten(toy, tmp_path):
    work_dir = tmp_path / 'run'
    work_dir.mkdir()
    (work_dir / 'data_errors.rank3.jsonl').write_text('{"data": "x", "index": 0, "fault": "old"}\n')
    assert trained(toy / 'skip.py', work_dir)
    assert indices(work_dir) == BOTH


def test_two_ranks_count_together(toy, tmp_path):
    assert trained(toy / 'skip.py', tmp_path / 'run', 2)
    assert indices(tmp_path / 'run') == BOTH


def test_phases_that_run_alone_count_together(toy, tmp_path):
    for phase in ('meta', 'module_0'):
        run = Run(tmp_path / 'out', 'train', toy / 'phases.py', '--work-dir', tmp_path / 'run', '--phase', phase)
        assert run.code() == 0, run.text()
        assert indices(tmp_path / 'run') == BOTH


def test_too_many_skipped_samples_stop_the_training(toy, tmp_path):
    error = stops(tmp_path, toy / 'skip.py', '--work-dir', tmp_path / 'run', '--cfg-options', 'max_data_errors=1')
    assert 'more than max_data_errors=1' in error and '1/3.png' in error and '2/5.png' in error
    assert not (tmp_path / 'run/result.json').exists()


def test_a_skipped_validation_image_would_change_the_number(toy, tmp_path):
    error = stops(tmp_path, toy / 'skip.py', '--work-dir', tmp_path / 'run', '--cfg-options',
                  f'val_dataloader.dataset.root={toy / "images"}')
    assert 'val_dataloader.dataset, sample 11' in error and 'they do not measure' in error


def test_test_raises_too(toy, whole, tmp_path):
    error = stops(tmp_path, toy / 'skip.py', whole / 'weights/e2e_last.safetensors', '--work-dir', tmp_path / 'run',
                  '--cfg-options', f'test_dataloader.dataset.root={toy / "images"}', tool='test')
    assert 'test_dataloader.dataset, sample 11' in error and '1/3.png' in error


@pytest.mark.parametrize('task', ['maskrcnn', 'upernet'])
def test_detection_and_segmentation_skip_and_say_so(task, data, tmp_path):  # noqa: F811
    config = short_config(task, data)
    path = data / 'demo/scenes/train/img/00002.png'
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    options = ('--cfg-options', 'train_dataloader.num_workers=2')
    try:
        run = Run(tmp_path / 'out', 'train', config, '--work-dir', tmp_path / 'skip', *options, 'data_errors=skip')
        assert run.code() == 0, run.text()[-3000:]
        [entry] = skipped(tmp_path / 'skip')['first']
        assert entry['index'] == 2 and f'{path}: truncated image' in entry['fault']
        assert f'{path}: truncated image' in stops(tmp_path, config, '--work-dir', tmp_path / 'raise', *options)
    finally:
        path.write_bytes(content)
