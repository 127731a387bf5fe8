"""Class numbers of validation and test are those of training, found by name."""
import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from mmincubation.checkpoints import read_tensors, write_tensors
from mmincubation.datasets.classes import difference, names_in, names_of
from mmincubation.datasets.classification import ImageFolder, numbered_by
from mmincubation.errors import ConfigError

TEN = tuple(str(i) for i in range(12))


def write(root, *names: str) -> str:
    """A folder for each name, with two images of the brightness that the name's number gives."""
    for name in names:
        (root / name).mkdir(parents=True)
        for i in range(2):
            Image.new('RGB', (4, 4), (20 * int(name.strip('n')), 0, 0)).save(root / name / f'{i}.png')
    return str(root)


def labels_by_brightness(data) -> dict[int, int]:
    """Brightness / 20 -> label of all samples."""
    return {int(sample['inputs'][0, 0, 0]) // 20: sample['labels'] for sample in (data[i] for i in range(len(data)))}


def test_folders_are_numbered_as_training_by_name(tmp_path):
    train = ImageFolder(write(tmp_path / 'train', *TEN))
    assert train.classes[:4] == ('0', '1', '10', '11')  # sorted as text
    val = ImageFolder(write(tmp_path / 'val', *TEN[:4], *TEN[5:]), classes=train.classes)  # without '4'
    expected = labels_by_brightness(train)
    del expected[4]
    assert labels_by_brightness(val) == expected
    assert val.classes == train.classes and len(val) == 22
    half = ImageFolder(str(tmp_path / 'val'), classes=train.classes, fraction=0.5)
    assert labels_by_brightness(half) == expected and len(half) == 11


def test_a_class_that_training_lacks_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="'3' is a class of the data, but none of the 2"):
        ImageFolder(write(tmp_path, '1', '3'), classes=('1', '2'))


def test_labels_that_are_no_class_stay_none():
    labels, classes = numbered_by(('b', 'c', 'a'), np.array([0, 1, -1, 2, 7]), ('a', 'b', 'c'))
    assert labels.tolist() == [2, 0, -1, 1, -1] and classes == ('b', 'c', 'a')


def test_rows_are_numbered_as_training_by_name(tmp_path):
    hf = pytest.importorskip('datasets')
    for name, names, labels in (('train', ['a', 'b', 'c'], [0, 1, 2]), ('val', ['c', 'a'], [0, 1, 1])):
        features = hf.Features(image=hf.Image(), label=hf.ClassLabel(names=names))
        hf.Dataset.from_dict(dict(image=[Image.new('RGB', (4, 4))] * 3, label=labels),
                             features=features).save_to_disk(str(tmp_path / name))
    settings = dict(type='mmincubation.HFImages', root=str(tmp_path / 'val'))
    assert names_of(settings, 'mmengine') == ('c', 'a')
    settings['classes'] = names_of(dict(settings, root=str(tmp_path / 'train')), 'mmengine')
    assert DATASETS.build(settings).labels.tolist() == [2, 0, 0]


def test_hidden_files_and_folders_are_no_data(tmp_path):
    write(tmp_path, '1', '2')
    (tmp_path / '.ipynb_checkpoints').mkdir()
    (tmp_path / '1/sub/.ipynb_checkpoints').mkdir(parents=True)
    for name in ('.DS_Store', '1/.DS_Store', '1/._0.png', '.0.png', '1/sub/.ipynb_checkpoints/0-checkpoint.png'):
        (tmp_path / name).write_bytes(b'x')
    data = ImageFolder(str(tmp_path))
    assert data.classes == ('1', '2') and len(data) == 4 and data.left_out is None
    (tmp_path / '3').mkdir()
    (tmp_path / '3/._0.png').write_bytes(b'x')
    with pytest.raises(ConfigError, match=r'1 class folders without an image \(3\)'):
        ImageFolder(str(tmp_path))


def test_a_hidden_folder_may_hold_all_data(tmp_path):
    assert len(ImageFolder(write(tmp_path / '.cache/data', '1', '2'))) == 4


@pytest.mark.parametrize('names, anew, expected', [
    (('a', 'b', 'c'), False, None),
    (('c', 'a'), True, None),
    (('c', 'x', 'y'), True, "2 of its 3 classes are none of the 3 of train, first 'x'"),
    (('a', 'c', 'b'), False, "class 1 is 'c', in train it is 'b'"),
    (('a', 'b'), False, "class 2 is missing, in train it is 'c'"),
    (('a', 'b', 'c', 'd'), False, "class 3 is 'd', in train it is missing"),
])
def test_the_first_difference_is_named(names, anew, expected):
    said = difference(names, ('a', 'b', 'c'), 'train', anew)
    assert said is None if expected is None else said.startswith(expected)


def test_names_of_data_sets_that_cannot_be_read_are_unknown(tmp_path):
    assert names_of(dict(type='mmincubation.ImageFolder', root=str(tmp_path / 'gone')), 'mmengine') is None
    assert names_of(dict(type='BaseSegDataset', metainfo=dict(classes=['a', 'b']), data_root='gone'), 'mmseg') == (
        'a', 'b')
    assert names_of(dict(type='BaseSegDataset', data_root='gone'), 'mmseg') is None
    assert len(names_of(dict(type='ADE20KDataset', data_root='gone'), 'mmseg')) == 150


def test_names_in_files_of_weights(tmp_path):
    import torch
    for name, meta in (('run', dict(dataset_meta=dict(classes=['a', 'b']))), ('other', dict(epoch=1)), ('none', None)):
        torch.save(dict(state_dict=dict(x=torch.ones(1)), **({} if meta is None else dict(meta=meta))),
                   tmp_path / f'{name}.pth')
    assert names_in(*read_tensors(tmp_path / 'run.pth')) == ('a', 'b')
    assert names_in(*read_tensors(tmp_path / 'other.pth')) is names_in(*read_tensors(tmp_path / 'none.pth')) is None
    write_tensors(tmp_path / 'vit.safetensors', dict(meta=torch.ones(1)), dict(classes=['c']))
    assert names_in(*read_tensors(tmp_path / 'vit.safetensors')) == ('c', )
