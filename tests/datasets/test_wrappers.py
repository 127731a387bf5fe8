"""mmengine's wrappers around classified images: the samples, names, numbers and runs of what they wrap."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, init_default_scope

from mmincubation.check.data import report_data
from mmincubation.check.report import Report
from mmincubation.check.sampling import Sampling
from mmincubation.config.problems import problems
from mmincubation.datasets.classification import ImageFolder
from mmincubation.datasets.files import image_names
from mmincubation.engine import launch
from mmincubation.provenance import content_digest, content_of
from mmincubation.result import read_result
from mmincubation.resumable.batches import SeededDataset
from tests.datasets.test_classification import save_split
from tests.helpers.toy import ARCH, arguments, e2e_config, write_images

CROP = [dict(type='torchvision.transforms.RandomCrop', size=8, padding=4)]


def folder(root, **more) -> dict:
    return dict(type='mmincubation.ImageFolder', root=str(root), pipeline=CROP) | more


def wrapped(root, kind: str) -> dict:
    """Twice the images, with class 2 three times in `balanced`."""
    match kind:
        case 'repeat':
            return dict(type='RepeatDataset', times=2, dataset=folder(root))
        case 'concat':
            return dict(type='ConcatDataset', datasets=[folder(root), folder(root)])
        case 'balanced':
            return dict(type='ClassBalancedDataset', oversample_thr=1., dataset=folder(root))


def built(settings: dict):
    init_default_scope('mmengine')

    def checked(inner: dict) -> dict:
        if 'datasets' in inner:
            return dict(inner, datasets=[checked(part) for part in inner['datasets']])
        if 'dataset' in inner:
            return dict(inner, dataset=checked(inner['dataset']))
        return dict(type='mmincubation.CheckedDataset', dataset=inner, place='train_dataloader.dataset')

    return DATASETS.build(checked(settings))


@pytest.mark.parametrize('kind', ['repeat', 'concat', 'balanced'])
def test_samples_are_those_of_the_folder_and_drawn_by_their_place(kind, images):
    plain, data = ImageFolder(str(images), CROP), built(wrapped(images, kind))
    assert len(data) == 48 and data.metainfo == plain.metainfo
    seeded, alone = SeededDataset(data, 3), SeededDataset(plain, 3)
    for i in (0, 5, 30, 47):
        inner = i // 2 if kind == 'balanced' else i % 24
        sample, expected = seeded[i, 1, i], alone[inner, 1, i]
        assert sample['labels'] == expected['labels'] and sample['index'] == inner
        assert torch.equal(sample['inputs'], expected['inputs'])
        assert plain.name(inner) in image_names(seeded, [inner])[0]
    assert content_digest(data) is not None and '48 samples' in content_of(data)


def test_rare_classes_are_repeated(tmp_path):
    write_images(tmp_path)
    for i in range(1, 8):
        (tmp_path / f'2/{i}.png').unlink()  # 1 of 17 images: sqrt(0.3 x 17) is 2.3
    data = built(wrapped(tmp_path, 'balanced') | dict(oversample_thr=.3))
    assert np.bincount([data[i]['labels'] for i in range(len(data))]).tolist() == [8, 8, 3]


def test_names_of_several_data_sets_are_all_said(images, tmp_path):
    write_images(tmp_path / 'more', per_class=1)
    arrow = dict(type='mmincubation.HFImages', root=save_split(images, tmp_path / 's'), image='img',
                 label='fine_label')
    data = built(dict(type='ConcatDataset', datasets=[folder(tmp_path / 'more'), folder(images), arrow]))
    assert image_names(data, [1, 20]) == [
        f'{tmp_path}/more/1/0.png or {images}/0/1.png or {tmp_path}/s, row 1',
        f'{images}/2/4.png or {tmp_path}/s, row 20']


def checked(train: dict) -> tuple[dict, list[str]]:
    report = Report()
    report.section('Data')
    cfg = Config(dict(model=dict(arch=ARCH), train_dataloader=dict(dataset=train)))
    return report_data(cfg, report, Sampling()), [str(problem) for problem in report.problems]


@pytest.mark.parametrize('kind', ['repeat', 'concat', 'balanced'])
def test_the_check_builds_them(kind, images):
    assert checked(wrapped(images, kind)) == (dict(train=48), [])
    assert 'cannot be built' in checked(dict(wrapped(images, 'repeat'), times='x'))[1][0]


def test_a_part_that_lacks_a_class_is_numbered_as_the_first(images, tmp_path):
    write_images(tmp_path / 'few')
    for file in (tmp_path / 'few/1').iterdir():
        file.unlink()
    (tmp_path / 'few/1').rmdir()
    both = dict(type='ConcatDataset', datasets=[folder(images), folder(tmp_path / 'few')])
    assert checked(both) == (dict(train=40), [])


@pytest.mark.parametrize('kind', ['repeat', 'concat', 'balanced'])
def test_a_run(kind, images, tmp_path):
    cfg = e2e_config(images, tmp_path / 'run', epochs=1)
    cfg.train_dataloader.dataset = wrapped(images, kind)
    cfg.dump(tmp_path / 'run.py')
    assert problems(cfg, 'train') == []
    assert launch.train(arguments(tmp_path / 'run.py')) == 0
    result = read_result(tmp_path / 'run/result.json')
    assert result['data']['train_size'] == 48 and result['data']['val_size'] == 24
