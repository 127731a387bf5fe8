"""Small data of the three tasks, to be damaged, and what must come of the damage under both policies."""
import io
import json
import warnings

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image
from torch.utils.data import DataLoader

from mmincubation.datasets.checked import CheckedDataset
from mmincubation.datasets.records import read_records
from mmincubation.errors import DataError

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


def label_file(root, index: int = BAD):
    return sorted((root / 'ade/annotations/training').glob('*.png'))[index]


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
