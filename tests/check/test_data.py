"""Checkers of data: every kind of mistake is found on a few small files, with the culprit's name."""
import json
import shutil

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmincubation.check.data import report_data
from mmincubation.check.report import Report
from mmincubation.check.sampling import Sampling
from mmincubation.demo.data import write_demo_data
from tests.helpers.toy import write_images
from tests.helpers.turned import turn

ARCH = dict(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=8, num_classes=3)


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes') / 'demo'
    write_demo_data(folder, cls_train=10, cls_val=10, scenes_train=4, scenes_val=2)
    return folder / 'scenes'


def found(model: dict, scope: str = 'mmengine', full: bool = False, **datasets) -> list[str]:
    """The problems of the given data sets, as lines."""
    return [str(problem) for problem in reported(model, scope, full, **datasets).problems]


def reported(model: dict, scope: str, full: bool = False, **datasets) -> Report:
    report = Report()
    report.section('Data')
    loaders = {f'{mode}_dataloader': dict(dataset=dataset) for mode, dataset in datasets.items()}
    loaders |= dict.fromkeys([f'{mode}_cfg' for mode in datasets], {})
    report_data(Config(dict(default_scope=scope, model=model, **loaders)), report, Sampling(full))
    return report


def folders(root, **more) -> dict:
    return dict(type='mmincubation.ImageFolder', root=str(root)) | more


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path / 'train', 2)
    write_images(tmp_path / 'val', 2)
    return tmp_path


def test_clean_folders(images):
    assert not found(dict(arch=ARCH), train=folders(images / 'train'), val=folders(images / 'val'))


def _empty_class(root):
    (root / 'train/1/0.png').unlink()
    (root / 'train/1/1.png').unlink()
    return f'{root}/train: 1 class folders without an image (1); fill or remove them'


def _empty_file(root):
    (root / 'train/2/1.png').write_bytes(b'')
    return f'images that cannot be read (1: {root}/train/2/1.png: cannot identify image file)'


def _truncated(root):
    path = root / 'train/0/0.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:5000])
    return f'images that cannot be read (1: {path}: image file is truncated'


def _no_image(root):
    (root / 'train/0/0.png').write_text('this is a text')
    return f'images that cannot be read (1: {root}/train/0/0.png: cannot identify image file)'


def _other_class(root):
    (root / 'val/2').rename(root / 'val/cat')
    return "val_dataloader.dataset: 1 of its 3 classes are none of the 3 of train_dataloader.dataset, first 'cat'"


def _too_many(root):
    shutil.copytree(root / 'train/0', root / 'train/dog')
    shutil.copytree(root / 'train/0', root / 'val/dog')
    return 'train_dataloader.dataset: 4 classes, but model.arch.num_classes is 3; make them equal'


@pytest.mark.parametrize('harm', [_empty_class, _empty_file, _truncated, _no_image, _other_class, _too_many])
def test_folders(harm, images):
    expected = harm(images)
    problems = found(dict(arch=ARCH), train=folders(images / 'train'), val=folders(images / 'val'))
    assert any(expected in line for line in problems), problems


@pytest.mark.parametrize('pipeline, expected', [
    ([], 'sample 0: {root}/0/0.png has 9 x 8 pixels after the pipeline, the model takes 8 x 8: add steps that resize'),
    ([dict(type='timm.data.create_transform', input_size=8)], 'sample 0: {root}/0/0.png has pixels of torch.float32 '
     'after the pipeline; the model takes 0 to 255 and normalises them itself: give create_transform normalize=False')])
def test_what_the_pipeline_makes_of_photographs(pipeline, expected, images):
    Image.new('RGB', (9, 8)).save(images / 'train/0/0.png')
    [line] = found(dict(arch=ARCH), train=folders(images / 'train', pipeline=pipeline))
    assert expected.format(root=images / 'train') in line and line.count('give create_transform') < 2
    right = dict(type='timm.data.create_transform', input_size=8, normalize=False)
    assert not found(dict(arch=ARCH), train=folders(images / 'train', pipeline=[right]))


def arrow(root, labels=(0, 1, 2), names=('a', 'b', 'c')):
    hf = pytest.importorskip('datasets')
    rows = [Image.fromarray(np.zeros((8, 8, 3), np.uint8)) for _ in labels]
    features = hf.Features(image=hf.Image(), label=hf.ClassLabel(names=list(names)))
    hf.Dataset.from_dict(dict(image=rows, label=list(labels)), features=features).save_to_disk(str(root))
    return dict(type='mmincubation.HFImages', root=str(root))


def test_arrow(tmp_path):
    model = dict(arch=ARCH)
    assert not found(model, train=arrow(tmp_path / 'clean'))
    assert 'classes without an image (1: c)' in found(model, train=arrow(tmp_path / 'empty', (0, 1)))[0]
    [line] = found(model, train=arrow(tmp_path / 'null', (0, None, 1, 2)))
    assert f'labels that are no class (1: {tmp_path}/null, row 1: -1)' in line
    assert 'dataset: 2 classes, but model.arch.num_classes is 3' in found(
        model, train=arrow(tmp_path / 'two', (0, 1), ('a', 'b')))[0]
    assert 'save_to_disk' in found(model, train=folders(tmp_path, type='mmincubation.HFImages'))[0]


def test_a_fraction_of_the_folders_is_counted(images):
    report = Report()
    report.section('Data')
    cfg = Config(dict(model=dict(arch=ARCH), train_dataloader=dict(dataset=folders(images / 'train', fraction=0.5))))
    assert report_data(cfg, report, Sampling()) == dict(train=3)


def test_a_class_whose_images_are_all_outside_the_part_is_named(images):
    (images / 'train/1/1.png').unlink()
    [line] = found(dict(arch=ARCH), train=folders(images / 'train', fraction=(.5, 1)))
    assert 'classes without an image (1: 1); add images, take a larger fraction' in line


def coco(root, **more) -> dict:
    steps = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
    return dict(type='CocoDataset', data_root=f'{root}/', ann_file='annotations/instances_train.json', pipeline=steps,
                data_prefix=dict(img='train/img/'), metainfo=dict(classes=tuple('0123456789'))) | more


DETECTOR = dict(roi_head=dict(bbox_head=dict(num_classes=10)))


def test_clean_coco(demo):
    model, names = dict(roi_head=dict(bbox_head=dict(num_classes=9))), tuple('023456789')  # these few have no 1
    for full in (False, True):
        assert not found(model, 'mmdet', full=full, train=coco(demo, metainfo=dict(classes=names)))


def _set(key, value, kind='annotations', entry=0):
    def harm(content: dict) -> None:
        content[kind][entry][key] = value
    return harm


COCO_CASES = [
    (_set('file_name', 'lost.png', 'images'), 'images in the JSON without a file (1: image 0: lost.png)'),
    (_set('width', 100, 'images'), 'images of another size than the JSON says (1: image 0: 00000.png is 192x192'),
    (_set('id', 0, 'images', 1), 'image ids that occur more than once (1: image 0)'),
    (_set('id', 2), 'annotation ids that occur more than once (2: annotation 2 of image 0'),
    (_set('name', 'zero', 'categories'), "classes that the JSON has no category for (1: '0')"),
    (_set('category_id', 99), 'unknown category_id (1: annotation 1 of image 0)'),
    (_set('image_id', 99), 'annotations of an image that is not in the JSON (1: annotation 1 of image 99)'),
    (_set('iscrowd', 2), 'iscrowd is neither 0 nor 1 (1: annotation 1'),
    (_set('bbox', [1, 2, 3]), 'boxes that are not four numbers (1: annotation 1'),
    (_set('bbox', [1, 2, 3, float('nan')]), 'boxes that are not finite (1: annotation 1'),
    (_set('bbox', [1, 2, -3, 4]), 'boxes of negative size (1: annotation 1'),
    (_set('bbox', [1, 2, 0, 4]), 'empty boxes (1: annotation 1'),
    (_set('bbox', [180, 2, 30, 4]), 'boxes that reach outside their image (1: annotation 1'),
    (_set('segmentation', []), 'empty segmentations (1: annotation 1'),
    (_set('segmentation', [[1, 2, 3, 4]]), 'polygons with fewer than three points'),
    (_set('segmentation', [[1, 2, 3, 4, 500, 6]]), 'polygons that reach outside their image'),
    (_set('segmentation', [[1, 2, 3, float('inf'), 5, 6]]), 'polygons that are not finite'),
    (_set('segmentation', 7), 'neither polygons nor run lengths'),
    (_set('segmentation', dict(size=[192, 192], counts=[5, 6])), 'run lengths that do not add up'),
    (_set('segmentation', dict(size=[10, 10], counts='x')), 'run-length segmentations of another size'),
    (_set('segmentation', dict(size=[192, 192])), 'run-length segmentations without size and counts'),
    (lambda c: c['annotations'][0].update(iscrowd=1, segmentation=[[1, 2, 3, 4, 5, 6]]), 'crowds (iscrowd=1)'),
    (lambda c: c.pop('categories'), 'has no categories'),
    (lambda c: c['images'][1].pop('width'), 'images without width (1: images[1])'),
    (lambda c: c['annotations'][2].pop('id'), 'annotations without id (1: annotations[2])'),
    (lambda c: c['images'].append('text'), 'images without file_name, height, id, width'),
]


def damaged(demo, tmp_path, *harms) -> dict:
    content = json.loads((demo / 'annotations/instances_train.json').read_text())
    for harm in harms:
        harm(content)
    (tmp_path / 'bad.json').write_text(json.dumps(content))
    return coco(demo, ann_file=str(tmp_path / 'bad.json'))


@pytest.mark.parametrize('harm, expected', COCO_CASES, ids=[expected for _, expected in COCO_CASES])
def test_coco(harm, expected, demo, tmp_path):
    problems = found(DETECTOR, 'mmdet', train=damaged(demo, tmp_path, harm))
    assert any(expected in line for line in problems), problems


def test_all_at_once_and_only_three_examples(demo, tmp_path):
    def many(content):
        for annotation in content['annotations']:
            annotation['category_id'] = 99
    problems = found(DETECTOR, 'mmdet', train=damaged(
        demo, tmp_path, many, _set('bbox', [1, 2, -3, 4]), _set('file_name', 'lost.png', 'images')))
    assert len(problems) == 3
    crowd = next(line for line in problems if 'category_id' in line)
    assert crowd.count('annotation ') == 3 and ', ...' in crowd


def test_broken_json_and_wrong_number_of_classes(demo, tmp_path):
    (tmp_path / 'bad.json').write_text('{"images": [')
    assert 'is no JSON' in found(DETECTOR, 'mmdet', train=coco(demo, ann_file=str(tmp_path / 'bad.json')))[0]
    model = dict(roi_head=dict(bbox_head=dict(num_classes=80)))
    wrong = 'train_dataloader.dataset: 10 classes, but model.roi_head.bbox_head.num_classes is 80'
    assert any(wrong in line for line in found(model, 'mmdet', train=coco(demo)))


SEGMENTOR = dict(decode_head=dict(num_classes=11))


def masks(root, **more) -> dict:
    return dict(type='BaseSegDataset', data_root=str(root), reduce_zero_label=True, img_suffix='.png',
                metainfo=dict(classes=[f'class {i}' for i in range(11)]),
                pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='PackSegInputs')],
                data_prefix=dict(img_path='train/img', seg_map_path='train/seg')) | more


def test_clean_masks(demo):
    assert not found(SEGMENTOR, 'mmseg', train=masks(demo))


def test_zero_label_shifts_what_is_allowed(demo):
    """The demo's labels are 0 (ignored) and 1..11; without reduce_zero_label 11 is one too many."""
    lines = found(SEGMENTOR, 'mmseg', train=masks(demo, reduce_zero_label=False))
    assert 'label values that are no class (0..10, 255 ignored) (2: ' in lines[0] and '00001.png: 11)' in lines[0]


def _save(name, array):
    return lambda root: Image.fromarray(array).save(root / 'train' / name)


MASK_CASES = [
    (lambda r: (r / 'train/seg/00001.png').unlink(), 'images without a label picture (1: {r}/train/img/00001.png)'),
    (_save('seg/00002.png', np.zeros((9, 8), np.uint8)),
     'of another size than their image (1: {r}/train/img/00002.png and {r}/train/seg/00002.png: labels '
     'of shape (9, 8), its image has (192, 192))'),
    (_save('seg/00002.png', np.full((192, 192), 77, np.uint8)),
     'no class (0..10, 255 ignored) (1: {r}/train/seg/00002.png: 76 after reduce_zero_label)'),
    (_save('seg/00002.png', np.zeros((192, 192, 3), np.uint8)),
     'a label picture with 3 channels, colours or transparency; write one byte a pixel, the class number (1: {r}/train/'
     'seg/00002.png)'),
    (lambda r: (r / 'train/seg/00002.png').write_bytes(b''), 'empty file (1: {r}/train/seg/00002.png'),
    (lambda r: (r / 'train/img/00002.png').write_bytes(b'x'), 'unreadable image (1: {r}/train/img/00002.png'),
]


@pytest.mark.parametrize('harm, expected', MASK_CASES, ids=[expected for _, expected in MASK_CASES])
def test_masks(harm, expected, demo, tmp_path):
    shutil.copytree(demo / 'train', tmp_path / 'train')
    harm(tmp_path)
    problems = found(SEGMENTOR, 'mmseg', train=masks(tmp_path))
    assert any(expected.format(r=tmp_path) in line for line in problems), problems


def test_palettes_that_differ(demo, tmp_path):
    shutil.copytree(demo / 'train', tmp_path / 'train')
    for number, colour in ((1, 9), (2, 99)):
        picture = Image.open(demo / f'train/seg/0000{number}.png').convert('P')
        picture.putpalette([value for i in range(256) for value in (i, 0, colour)])
        picture.save(tmp_path / f'train/seg/0000{number}.png')
    lines = found(SEGMENTOR, 'mmseg', train=masks(tmp_path))
    assert f'{tmp_path}/train/seg/00001.png and {tmp_path}/train/seg/00002.png have palettes' in lines[0]


def test_255_is_ignored(demo, tmp_path):
    shutil.copytree(demo / 'train', tmp_path / 'train')
    _save('seg/00002.png', np.full((192, 192), 255, np.uint8))(tmp_path)
    assert not found(SEGMENTOR, 'mmseg', train=masks(tmp_path))


def test_a_sample_says_its_share_and_is_always_the_same():
    sampling = Sampling(sample=10)
    seen, words = sampling.inspect(list(range(1000)), lambda i: i)
    assert len(seen) == 10 and words == '10 of 1,000 (1 %; --full looks at all)'
    assert seen == sampling.inspect(list(range(1000)), lambda i: i)[0]
    assert len(Sampling(full=True, sample=10).inspect(list(range(1000)), lambda i: i)[0]) == 1000
    assert len(Sampling(seconds=0, sample=200).inspect(list(range(1000)), lambda i: i)[0]) < 200


def test_images_that_a_tag_turns_in_place_are_told(demo, tmp_path):
    shutil.copytree(demo / 'train', tmp_path / 'train')
    turned = turn(tmp_path / 'train/img/00002.png')
    assert turned in '\n'.join(reported(SEGMENTOR, 'mmseg', train=masks(tmp_path)).warnings)
