"""Masks of COCO's objects as polygons: how exact their targets are, what cannot be kept that way, what they save."""
import pytest
from mmengine.registry import init_default_scope

from bench.masks import boxes_near, datasets, exact_targets, look, measure, targets
from mmincubation.check import memory
from mmincubation.config.load import load_config
from mmincubation.datasets.checked import CheckedDataset
from mmincubation.errors import DataError
from tests.check.test_data import DETECTOR, damaged, demo, found  # noqa: F401  demo is a fixture
from tests.helpers.damage import settings
from tests.helpers.synthetic_coco import write_coco


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp('masks')
    write_coco(folder / 'coco', 4, size=(200, 321), per_image=5, crowds=0.2)
    return folder


@pytest.mark.parametrize('schedule', ['1x', '3x'])
def test_polygons_give_the_more_exact_targets(schedule, root):
    init_default_scope('mmdet')
    costs = measure(datasets(schedule, root / 'coco'), 3)
    polygons, bitmaps = costs['polygons'], costs['bitmaps']
    assert max(polygons['wrong']) < .01 and sum(polygons['wrong']) < .5 * sum(bitmaps['wrong'])
    assert all(a < b / 50 for a, b in zip(polygons['peak'], bitmaps['peak'], strict=True))
    assert all(a < b / 50 for a, b in zip(polygons['sent'], bitmaps['sent'], strict=True))


def test_both_forms_have_the_same_objects(root):
    init_default_scope('mmdet')
    built = datasets('1x', root / 'coco')
    for i in range(len(built['bitmaps'])):
        bitmaps, polygons = (look(dataset, i)[1] for dataset in built.values())
        assert bitmaps.bboxes.tensor.equal(polygons.bboxes.tensor) and bitmaps.labels.equal(polygons.labels)
        near = boxes_near(polygons, i)
        assert (targets(bitmaps, *near) != exact_targets(polygons, *near)).float().mean() < .06


def test_configs_of_coco_keep_polygons_and_the_demo_bitmaps():
    """The demo's objects are run lengths."""
    for name, kept in {'coco/maskrcnn_vit_b_incub': False, 'coco/maskrcnn_vit_b_incub_3x': False,
                       'demo/maskrcnn_vit_demo_incub_grow': True}.items():
        steps = load_config(f'configs/{name}.py').train_dataloader.dataset.pipeline
        assert next(s for s in steps if s.type == 'LoadAnnotations').get('poly2mask', True) is kept


def as_polygons(dataset: dict) -> dict:
    dataset['pipeline'][1]['poly2mask'] = False
    return dataset


def test_run_lengths_of_an_object_are_refused_before_training(root, tmp_path):
    """mmdet would leave the object out without a word."""
    import json
    scope, dataset = settings('detection', root)
    init_default_scope(scope)
    CheckedDataset(as_polygons(dataset), num_classes=80)  # crowds may be run lengths
    path = root / 'coco/annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    next(a for a in content['annotations'] if a['iscrowd'])['iscrowd'] = 0
    (tmp_path / 'bad.json').write_text(json.dumps(content))
    with pytest.raises(DataError, match='objects as run lengths.*: set poly2mask=True'):
        CheckedDataset(dict(dataset, ann_file=str(tmp_path / 'bad.json')), num_classes=80)


def test_the_check_finds_them_too(demo, tmp_path):  # noqa: F811
    dataset = damaged(demo, tmp_path)
    assert not any('run lengths' in line for line in found(DETECTOR, 'mmdet', train=dataset))
    pipeline = [dict(type='LoadAnnotations', with_mask=True, poly2mask=False)]
    assert 'objects as run lengths' in found(DETECTOR, 'mmdet', train=dict(dataset, pipeline=pipeline))[0]


@pytest.mark.parametrize('poly2mask', [True, False])
def test_the_estimate_of_memory_knows_the_form(poly2mask, monkeypatch):
    """128 bitmaps as floats are half a gigabyte at 1333 x 800."""
    seen, made = [], memory.make_batch
    monkeypatch.setattr(memory, 'make_batch', lambda *args: seen.append(made(*args)) or seen[-1])
    cfg = load_config('configs/demo/maskrcnn_vit_demo_scratch.py')
    cfg.train_dataloader.batch_size = 1
    arch = dict(embed_dim=16, depth=1, num_heads=1, patch_size=8, img_size=32)
    cfg.model.backbone.update(arch=arch, out_indices=(0, ), global_blocks=())
    cfg.model.neck.in_channels = 16
    cfg.train_dataloader.dataset.pipeline[1].poly2mask = poly2mask
    assert memory.estimate(cfg)[0].kept > 0
    form = 'BitmapMasks' if poly2mask else 'PolygonMasks'
    assert type(seen[0]['data_samples'][0].gt_instances.masks).__name__ == form
