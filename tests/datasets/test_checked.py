"""What CheckedDataset adds to a data set, and what it leaves as it is."""
import warnings
from types import SimpleNamespace

import pytest
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope
from torch.utils.data import DataLoader

from mmincubation.config.data_errors import policy_problems
from mmincubation.datasets.checked import CheckedDataset
from mmincubation.datasets.records import read_records
from mmincubation.errors import DataError
from mmincubation.recovery.data_errors import wrap_datasets
from mmincubation.resumable.batches import SeededDataset
from tests.helpers.damage import (
    BAD,
    JPEG,
    PNG,
    build,
    image_file,
    put,
    settings,
)
from tests.helpers.toy import e2e_config


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


def test_a_pipeline_that_is_switched_is_used_and_checked(root):
    """As mmdet's PipelineSwitchHook does, through what the loop has wrapped around the data set."""
    dataset, seen = build('detection', root), []
    switched = Compose([*dataset.pipeline.transforms, lambda results: seen.append(1) or results])
    SeededDataset(dataset, 0).pipeline = switched
    assert dataset[0] and seen == [1]
    put(image_file('detection', root), b'')
    with pytest.raises(DataError, match='empty file'):
        dataset[BAD]


def test_a_broken_transform_is_told_with_its_place(root):
    dataset = build('detection', root)
    dataset.pipeline.transforms[-1] = lambda results: results['nothing']
    with pytest.raises(DataError, match=r"KeyError: 'nothing' \(datasets/test_checked.py:\d+\)"):
        dataset[BAD]


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
    assert list(policy_problems(e2e_config('', '', data_errors='ignore', max_data_errors=0))) == [
        "data_errors='ignore': choose one of raise, skip", 'max_data_errors=0: give a number of samples, 1 or more']
    assert not list(policy_problems(e2e_config('', '', data_errors='skip', max_data_errors=1)))


def wrapped(cfg) -> dict:
    """The data sets that a runner would build."""
    runner = SimpleNamespace(cfg=cfg, work_dir='run', **{
        f'_{kind}_dataloader': cfg[f'{kind}_dataloader'] for kind in ('train', 'val', 'test')})
    before = cfg.pretty_text
    wrap_datasets(runner, 'train', 'val', 'test')
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
