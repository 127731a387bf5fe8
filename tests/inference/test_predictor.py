"""load_model predicts what tools/test.py scores, for all three tasks, from paths, pictures and arrays."""
import pickle

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from pycocotools import mask as mask_utils

import mmincubation
from mmincubation.checkpoints import CheckpointError, write_tensors
from mmincubation.datasets.files import ORIENTATION
from mmincubation.engine import launch
from mmincubation.errors import ConfigError
from mmincubation.inference.preparing import PackedInput
from tests.helpers.models import TASKS, small_model
from tests.helpers.toy import arguments


@pytest.fixture(scope='module', params=TASKS)
def tested(request, tmp_path_factory):
    """(task, model, its predictions by tools/test.py) of a small model with random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    config, checkpoint = small_model(request.param, folder)
    assert launch.test(arguments(config, checkpoint=str(checkpoint), work_dir=str(folder / 'work'),
                                 out=str(folder / 'out.pkl'))) == 0
    found = pickle.loads((folder / 'out.pkl').read_bytes())
    return request.param, mmincubation.load_model(config, checkpoint), found, Config.fromfile(config)


def same(task, mine, theirs):
    if task == 'classification':
        scores = [mine['scores'][name] for name in sorted(mine['scores'])]
        np.testing.assert_allclose(scores, theirs['scores'], atol=1e-6)
        assert mine['name'] == next(iter(mine['scores'])) and mine['label'] == int(theirs['scores'].argmax())
    elif task == 'detection':
        theirs = theirs['pred_instances']
        assert len(mine['boxes']) == len(mine['names']) > 0
        np.testing.assert_allclose(mine['boxes'], theirs['bboxes'], atol=1e-3)
        np.testing.assert_allclose(mine['scores'], theirs['scores'], atol=1e-6)
        assert (mine['labels'] == theirs['labels'].numpy()).all()
        assert (mine['masks'] == np.stack([mask_utils.decode(m) for m in theirs['masks']]).astype(bool)).mean() > 0.9999
    else:
        assert (mine['classes'] == theirs['pred_sem_seg']['data'][0].numpy()).all() and len(mine['names']) == 150


def test_predicts_what_the_test_tool_scores(tested):
    task, model, found, cfg = tested
    paths = [sample.get('img_path') for sample in found]
    if task == 'classification':
        from mmincubation.datasets.classification import ImageFolder
        data = ImageFolder(cfg.test_dataloader.dataset.root)
        paths = [data.name(i) for i in range(len(data))]
    assert len(paths) >= 5 and not model.model.training
    for mine, theirs in zip(model.predict(paths), found, strict=True):
        same(task, mine, theirs)


def test_pixels_are_as_good_as_a_path(tested, tmp_path):
    task, model, _, _ = tested
    size = (8, 8) if task == 'classification' else (70, 50)
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    by_path = model.predict(tmp_path / 'image.png')
    for image in (pixels, Image.fromarray(pixels), np.asfortranarray(pixels)):
        assert mmengine.dump(plain(model.predict(image)), file_format='json') == mmengine.dump(
            plain(by_path), file_format='json')
    turned = model.predict(np.ascontiguousarray(pixels[..., ::-1]))
    assert mmengine.dump(plain(turned), file_format='json') != mmengine.dump(plain(by_path), file_format='json')
    sizes = dict(detection=lambda: by_path['masks'].shape[1:], segmentation=lambda: by_path['classes'].shape)
    assert task == 'classification' or sizes[task]() == (70, 50)


@pytest.mark.parametrize('how', ['16 bits', 'orientation tag'])
def test_an_open_image_is_as_good_as_its_path(tested, tmp_path, how):
    task, model, _, _ = tested
    size, exif = (8, 8) if task == 'classification' else (70, 50), Image.Exif()
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    if how == '16 bits':
        pixels = pixels[..., 0].astype(np.uint16) << 8
    else:
        exif[ORIENTATION] = 6
    Image.fromarray(pixels).save(tmp_path / 'image.png', exif=exif)
    by_path = plain(model.predict(tmp_path / 'image.png'))
    with Image.open(tmp_path / 'image.png') as image:
        assert plain(model.predict(image)) == by_path
    upright = pixels if how != '16 bits' else np.repeat((pixels >> 8).astype(np.uint8)[..., None], 3, 2)
    assert (plain(model.predict(upright)) == by_path) == (how == '16 bits' or task == 'classification')


@pytest.mark.parametrize('settings, turns', [
    ({}, True), (dict(imdecode_backend='pillow'), True), (dict(imdecode_backend='tifffile'), False),
    (dict(color_type='color_ignore_orientation'), False)])
def test_an_open_image_is_turned_where_the_first_step_would(settings, turns):
    image = Image.new('RGB', (50, 70))
    image.getexif()[ORIENTATION] = 6
    prepare = PackedInput([dict(type='LoadImageFromFile', **settings), dict(type='mmdet.PackDetInputs')])
    assert prepare(image)['inputs'][0].shape == ((3, 50, 70) if turns else (3, 70, 50))


def plain(result):
    return {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in result.items()}


def test_what_is_no_image_is_named(tested, tmp_path):
    task, model, _, _ = tested
    (tmp_path / 'notes.txt').write_text('no image')
    Image.new('RGB', (9, 5)).save(tmp_path / 'small.png')
    if task == 'classification':
        with pytest.raises(ConfigError, match='small.png: 9 x 5 pixels after the transforms of test_dataloader'):
            model.predict(str(tmp_path / 'small.png'))
    else:
        model.predict(str(tmp_path / 'small.png'))
    for image, words in ((tmp_path / 'notes.txt', 'notes.txt: unreadable'), (tmp_path / 'none.png', 'missing file'),
                         (Image.new('F', (8, 8)), r'pixels of 32 bits \(mode F\) have no known range'),
                         (np.zeros((4, 4)), r'an array \(4, 4\) of float64'), (7, 'a int is no image')):
        with pytest.raises(ConfigError, match=words):
            model.predict(image)


def test_names_come_from_the_checkpoint_and_wrong_ones_stop(images, tmp_path):
    config, checkpoint = small_model('classification', tmp_path, images)
    content = torch.load(checkpoint, weights_only=False)
    content['meta'] = dict(dataset_meta=dict(classes=('a', 'b', 'c')))
    torch.save(content, tmp_path / 'named.pth')
    assert mmincubation.load_model(config, tmp_path / 'named.pth').names == ('a', 'b', 'c')
    content['meta']['dataset_meta']['classes'] = ('a', 'b')
    torch.save(content, tmp_path / 'named.pth')
    with pytest.raises(ConfigError, match='named.pth: 2 classes, but model.arch.num_classes is 3'):
        mmincubation.load_model(config, tmp_path / 'named.pth')


def test_without_names_in_the_checkpoint_the_config_has_them_or_they_are_numbers(tmp_path):
    config, checkpoint = small_model('classification', tmp_path)
    content = torch.load(checkpoint, weights_only=False)
    del content['meta']['dataset_meta']
    torch.save(content, checkpoint)
    for name in '012':
        (tmp_path / f'images/{name}').rename(tmp_path / f'images/class_{name}')
    assert mmincubation.load_model(config, checkpoint).names == ('class_0', 'class_1', 'class_2')
    (tmp_path / 'images').rename(tmp_path / 'elsewhere')
    model = mmincubation.load_model(config, checkpoint)
    assert model.names == ('0', '1', '2') and model.palette.tolist() == [[128, 0, 0], [0, 128, 0], [128, 128, 0]]


def test_averaged_weights_predict(images, tmp_path):
    """mmengine's EMAHook stores the average as `state_dict`, which tools/test.py measures."""
    config, checkpoint = small_model('classification', tmp_path, images)
    content = torch.load(checkpoint, weights_only=False)
    first = mmincubation.load_model(config, checkpoint).predict(next(images.rglob('*.png')))
    content['ema_state_dict'] = {f'module.{key}': value + 1 for key, value in content['state_dict'].items()}
    torch.save(content, checkpoint)
    assert mmincubation.load_model(config, checkpoint).predict(next(images.rglob('*.png'))) == first


def test_nothing_else_is_public():
    with pytest.raises(AttributeError, match="no attribute 'load_models'"):
        mmincubation.load_models  # noqa: B018


def test_weights_of_a_vit_serve_a_classifier(images, tmp_path):
    config, checkpoint = small_model('classification', tmp_path, images)
    model = mmincubation.load_model(config, checkpoint)
    write_tensors(tmp_path / 'vit.safetensors', model.model.vit.state_dict(),
                  dict(kind='vit', arch=model.model.vit.arch.to_dict()))
    image = next(images.rglob('*.png'))
    assert mmincubation.load_model(config, tmp_path / 'vit.safetensors').predict(image) == model.predict(image)


def test_wrong_files_end_in_one_line(images, tmp_path):
    config, checkpoint = small_model('classification', tmp_path, images)
    (tmp_path / 'broken.pth').write_bytes(checkpoint.read_bytes()[:2000])
    (tmp_path / 'empty.py').write_text('x = 1')
    for kind, words, args in (
            (CheckpointError, 'truncated', (config, tmp_path / 'broken.pth')),
            (ConfigError, 'does not exist', (tmp_path / 'none.py', checkpoint)),
            (ConfigError, 'it has no model, test_dataloader', (tmp_path / 'empty.py', checkpoint)),
            (ConfigError, "device 'nowhere'", (config, checkpoint, 'nowhere'))):
        with pytest.raises(kind, match=words) as error:
            mmincubation.load_model(*args)
        assert '\n' not in str(error.value)
