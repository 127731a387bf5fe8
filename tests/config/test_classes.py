"""Classes that the data, the heads of a model and a checkpoint do not share stop a run before it writes anything."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from PIL import Image

from mmincubation.checkpoints import read_tensors
from mmincubation.config.classes import class_counts, class_problems, names_for_test
from mmincubation.errors import ConfigError
from mmincubation.recovery.data_errors import wrap_datasets
from tests.helpers.toy import ARCH, e2e_config


def for_test(cfg, path):
    return names_for_test(cfg, str(path), *read_tensors(path))


@pytest.fixture
def roots(tmp_path):
    """Folders of classes by their names, e.g. `roots('a', 'b')`."""
    def make(*names: str) -> str:
        root = tmp_path / '-'.join(names)
        for name in names:
            (root / name).mkdir(parents=True, exist_ok=True)
            Image.new('RGB', (8, 8)).save(root / name / '0.png')
        return str(root)
    return make


def config(train: str, val: str, **changes) -> Config:
    cfg = e2e_config(train, 'run')
    cfg.val_dataloader.dataset.root = cfg.test_dataloader.dataset.root = val
    cfg.merge_from_dict(changes)
    return cfg


def test_names_in_another_order_or_fewer_are_no_problem_and_get_trainings_numbers(roots):
    cfg = config(roots('a', 'b', 'c'), roots('c', 'b'))
    assert not [*class_problems(cfg, 'train')] and not [*class_problems(cfg, 'test')]
    loaders = {f'_{kind}_dataloader': cfg[f'{kind}_dataloader'] for kind in ('train', 'val', 'test')}
    runner = SimpleNamespace(cfg=cfg, work_dir='run', **loaders)
    wrap_datasets(runner, 'train', 'val', 'test')
    assert 'classes' not in runner._train_dataloader['dataset']['dataset']
    for loader in (runner._val_dataloader, runner._test_dataloader):
        assert loader['dataset']['dataset']['classes'] == ('a', 'b', 'c')
    assert 'classes' not in cfg.val_dataloader.dataset


def test_a_name_that_training_lacks_is_refused_in_val_and_test(roots):
    cfg = config(roots('a', 'b', 'c'), roots('a', 'b', 'd'))
    for mode, kind in (('train', 'val'), ('test', 'test')):
        assert [*class_problems(cfg, mode)] == [
            f"{kind}_dataloader.dataset: 1 of its 3 classes are none of the 3 of train_dataloader.dataset, first 'd'; "
            'name them as there']


def test_a_test_takes_the_checkpoints_names_before_those_of_training(roots, tmp_path):
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('d', 'a', 'b'))), state_dict={}), tmp_path / 'run.pth')
    cfg = config(roots('a', 'b', 'c'), roots('a', 'b', 'd'))
    assert for_test(cfg, tmp_path / 'run.pth') == (('d', 'a', 'b'), str(tmp_path / 'run.pth'))
    torch.save(dict(state_dict={}), tmp_path / 'bare.pth')
    with pytest.raises(ConfigError, match="none of the 3 of train_dataloader.dataset, first 'd'"):
        for_test(cfg, tmp_path / 'bare.pth')
    cfg.train_dataloader.dataset.root = 'gone'  # nobody has names: at least the count
    assert for_test(cfg, tmp_path / 'bare.pth') is None
    cfg.test_dataloader.dataset.root = roots('a', 'b')
    with pytest.raises(ConfigError, match='test_dataloader.dataset: 2 classes, but model.arch.num_classes is 3'):
        for_test(cfg, tmp_path / 'bare.pth')


def test_one_folder_with_everything_is_refused(roots):
    one = roots('all')
    cfg = config(one, one, model=dict(arch=dict(ARCH, num_classes=1)))
    assert [*class_problems(cfg, 'train')] == [
        "train_dataloader.dataset: 'all' is the only class, so every image would be right; give each class a folder"]


def test_mixups_classes_are_the_data_sets(roots):
    three = roots('a', 'b', 'c')
    mixup = dict(type='timm.data.Mixup', mixup_alpha=0.8)
    for given, wrong in (({}, 1000), (dict(num_classes=4), 4), (dict(num_classes=3), None)):
        cfg = config(three, three, model=dict(data_preprocessor=dict(
            type='mmincubation.ClsDataPreprocessor', mixup=mixup | given)))
        assert [*class_problems(cfg, 'train')] == ([] if wrong is None else [
            'train_dataloader.dataset: 3 classes, but model.data_preprocessor.mixup.num_classes is '
            f'{wrong}; make them equal'])


@pytest.mark.parametrize('model, scope, expected', [
    (dict(decode_head=dict(num_classes=2), auxiliary_head=[dict(num_classes=2), dict(num_classes=3)]), 'mmseg', {
        'decode_head': 2, 'auxiliary_head.0': 2, 'auxiliary_head.1': 3}),
    (dict(rpn_head=dict(type='RPNHead', num_classes=1), roi_head=dict(
        bbox_head=[dict(num_classes=2)] * 2, mask_head=dict(type='FCNMaskHead'))), 'mmdet', {
        'roi_head.bbox_head.0': 2, 'roi_head.bbox_head.1': 2, 'roi_head.mask_head': 80}),
    (dict(bbox_head=dict(type='DINOHead', num_classes=4), backbone=dict(arch=dict(num_classes=7))), 'mmdet', {
        'bbox_head': 4}),
])
def test_every_head_is_compared(model, scope, expected):
    assert dict(class_counts(model, scope)) == {f'model.{k}.num_classes': v for k, v in expected.items()}


def test_things_and_stuff_are_counted_together():
    head = dict(num_things_classes=3, num_stuff_classes=2)
    assert [*class_counts(dict(panoptic_head=head), 'mmdet')] == [
        ('model.panoptic_head.num_things_classes + num_stuff_classes', 5)]


def test_another_order_of_a_config_is_refused():
    data = dict(type='BaseSegDataset', data_root='gone')
    loaders = {f'{kind}_dataloader': dict(dataset=dict(data, metainfo=dict(classes=names)))
               for kind, names in (('train', ['a', 'b']), ('val', ['b', 'a']))}
    cfg = Config(dict(default_scope='mmseg', model=dict(decode_head=dict(num_classes=2)), val_cfg={}, **loaders))
    assert [*class_problems(cfg, 'train')] == [
        "val_dataloader.dataset: class 0 is 'b', in train_dataloader.dataset it is 'a'; give the same classes in the "
        'same order']
    cfg.train_dataloader.dataset = dict(type='RepeatDataset', times=2, dataset=cfg.train_dataloader.dataset)
    assert 'in train_dataloader.dataset.dataset it is' in [*class_problems(cfg, 'train')][0]
