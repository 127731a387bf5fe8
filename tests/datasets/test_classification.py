"""Readers of classification data, the draws of their augmentation, and repeated augmentation."""
import io
import random
import re
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner
from PIL import Image
from timm.data.distributed_sampler import RepeatAugSampler as TimmSampler

from mmincubation.datasets.classification import HFImages, ImageFolder
from mmincubation.datasets.samplers import RepeatAugSampler
from mmincubation.datasets.subsets import balanced_subset
from mmincubation.errors import ConfigError
from mmincubation.resumable.batches import SeededDataset, resumable_loader
from tests.helpers.toy import write_images

CROP = [dict(type='torchvision.transforms.RandomCrop', size=8, padding=4)]
DEIT = [dict(type='timm.data.create_transform', input_size=8, is_training=True, interpolation='bicubic',
             auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4, normalize=False)]


def save_split(images, folder, embed: bool = True) -> str:
    """The folder's images as a split of Hugging Face datasets, with their bytes or by their paths."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn
    files = sorted(images.glob('*/*.png'))
    content = [dict(bytes=f.read_bytes(), path=None) if embed else dict(bytes=None, path=str(f)) for f in files]
    Dataset.from_dict(
        dict(img=content, fine_label=[int(f.parent.name) for f in files]),
        features=Features(img=ImageColumn(), fine_label=ClassLabel(names=['0', '1', '2']))).save_to_disk(str(folder))
    return str(folder)


@pytest.mark.parametrize('embed', [True, False])
def test_both_layouts_give_the_same_samples(images, tmp_path, embed):
    folder = DATASETS.build(dict(type='mmincubation.ImageFolder', root=str(images)))
    arrow = DATASETS.build(dict(type='mmincubation.HFImages', root=save_split(images, tmp_path / 's', embed),
                                image='img', label='fine_label'))
    assert len(folder) == len(arrow) == 24 and folder.metainfo == arrow.metainfo
    for a, b in zip(folder, arrow, strict=True):
        assert a['inputs'].dtype == torch.uint8 and a['inputs'].shape == (3, 8, 8)
        assert torch.equal(a['inputs'], b['inputs']) and a['labels'] == b['labels']
    pixels = np.asarray(Image.open(sorted(images.glob('1/*.png'))[2])).transpose(2, 0, 1)
    assert np.array_equal(folder[10]['inputs'].numpy(), pixels) and folder[10]['labels'] == 1


@pytest.mark.parametrize('mode', ['L', 'RGBA', 'P', 'CMYK'])
def test_every_picture_becomes_rgb(tmp_path, mode):
    (tmp_path / 'a').mkdir()
    suffix = 'jpg' if mode == 'CMYK' else 'png'
    Image.new('RGB', (5, 4), (10, 20, 30)).convert(mode).save(tmp_path / f'a/x.{suffix}')
    assert ImageFolder(str(tmp_path))[0]['inputs'].shape == (3, 4, 5)


def test_a_fraction_is_balanced_nested_and_fixed():
    labels = np.repeat([2, 0, 1], [40, 20, 3])
    half, quarter = balanced_subset(labels, 0.5), balanced_subset(labels, 0.25)
    assert np.bincount(labels[half]).tolist() == [10, 2, 20] and np.bincount(labels[quarter]).tolist() == [5, 1, 10]
    assert set(quarter) < set(half) and np.array_equal(half, balanced_subset(labels, 0.5))
    assert np.array_equal(half, np.sort(half)) and len(balanced_subset(labels, 1)) == 63
    assert not np.array_equal(half[:20], np.arange(20))  # chosen over all of the class
    assert len(balanced_subset(labels, 1e-6)) == 3
    rest = balanced_subset(labels, (.75, 1))
    assert np.bincount(labels[rest]).tolist() == [5, 1, 10] and not set(rest) & set(balanced_subset(labels, .75))
    assert np.array_equal(balanced_subset(labels, (0, .5)), half)


@pytest.mark.parametrize('cut', [.1, .5, .75, .9])
def test_parts_that_meet_share_no_image_and_leave_none_out(cut):
    labels = np.repeat(range(12), range(1, 13))  # classes of 1 to 12 images
    first, second = balanced_subset(labels, cut), balanced_subset(labels, (cut, 1))
    assert np.array_equal(np.sort(np.concatenate([first, second])), np.arange(len(labels)))
    assert set(labels[first]) == set(range(12))


def test_a_part_that_holds_no_image_is_named():
    with pytest.raises(ConfigError, match=r'^fraction=\(0.9, 1\): no class has so many images that one lies in'):
        balanced_subset(np.repeat([0, 1], [2, 3]), (.9, 1))


def test_a_part_of_images_whose_labels_are_no_class_can_be_taken():
    assert len(balanced_subset(np.full(10, -1), .5)) == 5  # that they are no class is said later


@pytest.mark.parametrize('fraction', [0, 1.5, 50, (.5, .5), (.9, .1), (-.1, .5), (0, .5, 1), (0, '1')])
def test_a_wrong_fraction_is_named(images, fraction):
    with pytest.raises(ConfigError, match=rf'^fraction={re.escape(str(fraction))}: give a number above 0 and not'):
        ImageFolder(str(images), fraction=fraction)


@pytest.mark.parametrize('pipeline', [[], [dict(type='torchvision.transforms.RandomCrop', size=4)]])
def test_images_in_memory_are_decoded_once_and_the_same(images, pipeline, monkeypatch):
    read, kept = ImageFolder(str(images), pipeline), ImageFolder(str(images), pipeline, in_memory=True)
    decoded, original = [], ImageFolder.read
    monkeypatch.setattr(ImageFolder, 'read', lambda self, i: decoded.append(self is kept) or original(self, i))
    for epoch in range(2):
        first, second = (list(map(SeededDataset(data, 0).__getitem__, [(i, epoch, i) for i in range(len(data))]))
                         for data in (read, kept))
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one['inputs'], other['inputs']) and one['labels'] == other['labels']
    assert decoded.count(True) == len(kept) and decoded.count(False) == 2 * len(kept)


def test_without_a_pipeline_no_sample_is_seeded(images, monkeypatch):
    seeded = []
    monkeypatch.setattr('mmincubation.resumable.batches.seeded', lambda *key: seeded.append(key) or nullcontext())
    for pipeline, count in (([], 0), ([dict(type='torchvision.transforms.RandomCrop', size=4)], 1)):
        SeededDataset(ImageFolder(str(images), pipeline), 0)[0, 0, 0]
        assert len(seeded) == count


def test_missing_and_wrong_data_are_one_line_errors(images, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match='holds no images in folders of classes'):
        ImageFolder(str(tmp_path))
    with pytest.raises(ConfigError, match='was not written by save_to_disk .*docs/tasks/imagenet.md'):
        HFImages(str(tmp_path))
    root = save_split(images, tmp_path / 'split')
    with pytest.raises(ConfigError, match="has no Image column 'image'; it has img$"):
        HFImages(root)
    with pytest.raises(ConfigError, match="has no ClassLabel column 'label'; it has fine_label$"):
        HFImages(root, image='img')
    from datasets import DatasetDict, load_from_disk
    DatasetDict(train=load_from_disk(root), test=load_from_disk(root)).save_to_disk(str(tmp_path / 'all'))
    with pytest.raises(ConfigError, match='all holds the splits test, train: give the folder of one of them$'):
        HFImages(str(tmp_path / 'all'))
    assert len(HFImages(str(tmp_path / 'all/test'), image='img', label='fine_label', fraction=0.5)) == 12
    monkeypatch.setitem(sys.modules, 'datasets', None)
    with pytest.raises(ConfigError, match='needs the package datasets .*: `python -m pip install'):
        HFImages(root)


def test_a_broken_image_is_named(images, tmp_path):
    (tmp_path / 'f/a').mkdir(parents=True)
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, 'PNG')
    (tmp_path / 'f/a/cut.png').write_bytes(buffer.getvalue()[:500])
    (tmp_path / 'f/a/text.png').write_text('no picture')
    data = ImageFolder(str(tmp_path / 'f'))
    for i, name in enumerate(('cut', 'text')):
        with pytest.raises(ConfigError, match=f'a/{name}.png cannot be read as an image'):
            data[i]


def loader(images, pipeline, sampler='DefaultSampler', **settings):
    """A training dataloader as a training loop has it."""
    stock = Runner.build_dataloader(dict(
        dataset=dict(type='mmincubation.ImageFolder', root=str(images), pipeline=pipeline), batch_size=6,
        sampler=dict(type=sampler), collate_fn=dict(type='default_collate'), drop_last=True, **settings), seed=3)
    return resumable_loader(stock, seed=3)


def epochs(data, count: int = 2) -> list[torch.Tensor]:
    """All images of each epoch, (N, 3, H, W), in their order, drawn as in a training loop."""
    found = []
    for epoch in range(count):
        data.batch_sampler.seek(epoch)
        found.append(torch.cat([batch['inputs'] for batch in data]))
    return found


@pytest.mark.parametrize('pipeline', [CROP, DEIT], ids=['crop', 'deit'])
def test_epochs_differ_and_are_the_same_for_any_workers(images, pipeline):
    alone = epochs(loader(images, pipeline, num_workers=0))
    for persistent in (False, True):
        workers = epochs(loader(images, pipeline, num_workers=2, persistent_workers=persistent))
        assert all(torch.equal(a, b) for a, b in zip(alone, workers, strict=True)), persistent
    unshuffled = loader(images, pipeline, num_workers=2)
    unshuffled.batch_sampler.sampler.shuffle = False
    first, second = epochs(unshuffled)
    assert not torch.equal(first, second)  # the same images in the same order, drawn anew
    later = loader(images, pipeline, num_workers=2)  # a run that is resumed at epoch 1
    later.batch_sampler.seek(1)
    assert torch.equal(alone[1], torch.cat([batch['inputs'] for batch in later]))


def test_loading_does_not_move_the_models_draws(images):
    data = SeededDataset(ImageFolder(str(images), DEIT), 1)

    def draws():
        return random.random(), np.random.rand(), torch.rand(1).item()

    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected = draws()
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    data[0, 0, 0]
    assert draws() == expected


def test_repeats_and_seeds_draw_anew(images):
    plain = ImageFolder(str(images), CROP)
    data = SeededDataset(plain, 1)
    first = data[5, 0, 7]['inputs']
    assert torch.equal(first, data[5, 0, 7]['inputs'])
    others = [data[5, 0, 8], data[5, 1, 7], SeededDataset(plain, 2)[5, 0, 7]]
    assert not any(torch.equal(first, other['inputs']) for other in others)
    with pytest.raises(IndexError):
        data[24, 0, 0]


class Sized:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


def ranks(monkeypatch, size, world, epoch=4):
    """Each rank's sampler of a data set."""
    samplers = []
    for rank in range(world):
        monkeypatch.setattr('mmincubation.datasets.samplers.get_dist_info', lambda rank=rank: (rank, world))
        samplers.append(DATA_SAMPLERS.build(dict(type='mmincubation.RepeatAugSampler', dataset=Sized(size), seed=7)))
        samplers[-1].set_epoch(epoch)
    return samplers


@pytest.mark.parametrize('size, world', [(1000, 1), (1000, 3), (1000, 8), (100, 2)])
def test_repeated_augmentation_is_timms(monkeypatch, size, world):
    samplers = ranks(monkeypatch, size, world)
    for rank, sampler in enumerate(samplers):
        theirs = TimmSampler(Sized(size), world, rank)
        theirs.set_epoch(7 + 4)
        assert list(sampler) == list(theirs) and len(list(sampler)) == len(sampler) == len(theirs)
    if size >= 256:
        assert len(samplers[0]) == size // 256 * 256 // world


@pytest.mark.parametrize('size, world', [(1000, 1), (1000, 3), (777, 4), (1281, 8), (256, 2)])
def test_repeated_augmentation_is_deits(monkeypatch, size, world):
    """Sample i of a rank is place rank + i x ranks of a row in which each image of a permutation stands 3 times."""
    order = torch.randperm(size, generator=torch.Generator().manual_seed(7 + 4)).tolist()
    for rank, sampler in enumerate(ranks(monkeypatch, size, world)):
        assert len(sampler) == size // 256 * 256 // world
        assert list(sampler) == [order[(rank + i * world) % (3 * size) // 3] for i in range(len(sampler))]


def test_repeats_of_an_image_go_to_different_ranks(monkeypatch):
    indices = [list(s) for s in ranks(monkeypatch, 1000, 3)]
    assert indices[0] == indices[1] == indices[2]


def test_order_depends_on_seed_and_epoch():
    a, b = RepeatAugSampler(Sized(300), seed=1), RepeatAugSampler(Sized(300), seed=2)
    assert list(a) == list(a) != list(b)
    before = list(a)
    a.set_epoch(1)
    assert list(a) != before


def test_repeated_augmentation_through_workers(images):
    data = loader(images, CROP, 'mmincubation.RepeatAugSampler', num_workers=2)
    first, second = epochs(data)
    assert len(first) == 24 and not torch.equal(first, second)
    again = epochs(loader(images, CROP, 'mmincubation.RepeatAugSampler', num_workers=0))
    assert torch.equal(first, again[0]) and torch.equal(second, again[1])


def test_the_installed_pillow_does_what_randaugment_asks():
    """At magnitude 9 +- 0.5 timm posterizes one image in some hundred to 0 bits, which Pillow 13 refuses."""
    from timm.data.auto_augment import AugmentOp
    black = AugmentOp('PosterizeIncreasing', prob=1., magnitude=10)(Image.new('RGB', (8, 8), 'red'))
    assert black.getextrema() == ((0, 0), ) * 3


@pytest.mark.parametrize('splits', [('train', 'val'), ('Test', 'Train'), ('TRAINING', 'dev'), ('Eval', 'trainval')])
def test_splits_are_no_classes(tmp_path, splits):
    for split in splits:
        write_images(tmp_path / split, per_class=1)
    with pytest.raises(ConfigError, match=f'holds {", ".join(splits)}, which are no classes: give root=.*/(?i:train)'):
        ImageFolder(str(tmp_path))


def test_files_that_are_no_images_by_name_are_said(tmp_path):
    write_images(tmp_path, per_class=1)
    assert ImageFolder(str(tmp_path)).left_out is None
    for name in ('b.jfif', '.hidden', 'notes.txt'):
        (tmp_path / '0' / name).write_bytes(b'x')
    assert ImageFolder(str(tmp_path)).left_out == (
        f'{tmp_path}: 2 files are left out, whose names are none of images: {tmp_path}/0/b.jfif')
    with pytest.raises(ConfigError, match='root=None: give the folder'):
        ImageFolder(None)


def test_images_beside_the_folders_of_classes_are_said(tmp_path):
    write_images(tmp_path, per_class=1)
    for name in ('b.JPEG', 'a.png', 'labels.csv'):
        (tmp_path / name).write_bytes(b'x')
    data = ImageFolder(str(tmp_path))
    assert len(data) == 3 and data.left_out == (
        f'{tmp_path}: 2 files are left out, which lie beside the folders of classes: {tmp_path}/a.png')
