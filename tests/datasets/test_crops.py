"""Decoded pictures are Pillow's bit for bit; crops are those of timm's create_transform within rounding."""
import io
import random

import numpy as np
import pytest
import torch
from mmengine.registry import DATASETS, TRANSFORMS
from PIL import Image
from timm.data import create_transform as timms

from mmincubation.datasets import images
from mmincubation.datasets.crops import ResizedCrop, create_transform
from mmincubation.datasets.images import planes, read_rgb
from mmincubation.demo.sources import photos
from mmincubation.errors import ConfigError
from tests.helpers.damage import encoded

PLAIN = dict(input_size=64, is_training=True, interpolation='bicubic', color_jitter=None, normalize=False)
DEIT = dict(PLAIN, auto_augment='rand-m9-mstd0.5-inc1', color_jitter=0.4)
PHOTOS = [Image.fromarray(photo).resize((251, 187)) for photo in photos('train')]
NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (187, 251, 3), np.uint8))


def pillows(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert('RGB'))


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x112] = 6
    return encoded(PHOTOS[0], exif=exif)


JPEGS = {
    '4:2:0': encoded(PHOTOS[0], quality=92, subsampling=2), '4:2:2': encoded(PHOTOS[1], quality=92, subsampling=1),
    '4:4:4': encoded(PHOTOS[2], quality=95, subsampling=0), 'progressive': encoded(PHOTOS[3], progressive=True),
    'restarts': encoded(PHOTOS[4], restart_marker_blocks=3), 'grey': encoded(PHOTOS[5].convert('L')),
    'rgb inside': encoded(PHOTOS[6], keep_rgb=True), 'turned': turned(),
    'one pixel': encoded(PHOTOS[0].crop((0, 0, 1, 1))), 'poor': encoded(PHOTOS[1], quality=10),
    'cmyk': encoded(PHOTOS[0].convert('CMYK'))}


@pytest.fixture
def decoded(monkeypatch) -> list[int]:
    """Grows with every picture that torchvision has decoded."""
    sizes, decode = [], images.decode_jpeg
    monkeypatch.setattr(images, 'decode_jpeg', lambda data: sizes.append(len(data)) or decode(data))
    return sizes

@pytest.mark.parametrize('how', JPEGS)
def test_pixels_are_pillows(how, decoded):
    seen = read_rgb(io.BytesIO(JPEGS[how]))
    assert seen.dtype == torch.uint8 and np.array_equal(seen.permute(1, 2, 0).numpy(), pillows(JPEGS[how]))
    assert bool(decoded) == (how != 'cmyk')

def damaged(draw: np.random.Generator) -> bytes:
    """A JPEG that was cut, zeroed, shortened, or has a bit or a byte flipped, somewhere."""
    content = bytearray(JPEGS[draw.choice(['4:2:0', '4:4:4', 'progressive', 'restarts', 'grey'])])
    at, some = int(draw.integers(2, len(content))), int(draw.integers(1, 60))
    match draw.integers(6):
        case 0:
            del content[at:]
        case 1:
            content[at:] = bytes(len(content) - at)
        case 2:
            content[at] ^= 1 << int(draw.integers(8))
        case 3:
            del content[-some:]
        case 4:
            del content[at:at + some]
        case 5:
            content[at:at + some] = draw.bytes(some)
    return bytes(content)

@pytest.mark.filterwarnings('ignore')  # Pillow's, about EXIF
def test_damaged_pictures_are_refused_where_pillow_refuses_them_and_else_the_same(decoded):
    draw, refused, same = np.random.default_rng(3), 0, 0
    for _ in range(300):
        content = damaged(draw)
        try:
            expected = pillows(content)
        except Exception as error:
            with pytest.raises(type(error)):
                read_rgb(io.BytesIO(content))
            refused += 1
        else:
            assert np.array_equal(read_rgb(io.BytesIO(content)).permute(1, 2, 0).numpy(), expected)
            same += 1
    assert refused > 50 and same > 50 and len(decoded) > 200

def test_a_picture_too_large_to_be_one_is_refused_before_it_is_decoded(tmp_path, monkeypatch, decoded):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/x.jpg').write_bytes(JPEGS['4:4:4'])
    data = DATASETS.build(dict(type='mmincubation.ImageFolder', root=str(tmp_path)))
    assert data[0]['inputs'].shape == (3, 187, 251)
    decoded.clear()
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    with pytest.raises(ConfigError, match='x.jpg cannot be read as an image: .*decompression bomb'):
        data[0]
    assert not decoded

def both(picture: Image.Image, settings: dict, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ours and timm's sample (H, W, 3) of one draw; then their generators must stand at the same place."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    samples, after = [], []
    for make, given in ((create_transform, pixels), (timms, picture)):
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        samples.append(make(**settings)(given).permute(1, 2, 0).numpy().astype(int))
        after.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert after[0] == after[1]
    return tuple(samples)

@pytest.mark.parametrize('settings', [
    PLAIN, dict(PLAIN, input_size=224), dict(PLAIN, interpolation='bilinear'), dict(PLAIN, interpolation='random')])
def test_crops_are_timms_within_rounding(settings):
    apart = [np.abs(np.subtract(*both(p, settings, seed))) for p in [*PHOTOS, NOISE] for seed in range(15)]
    assert max(a.max() for a in apart) <= 3
    assert np.mean([np.mean(a) for a in apart]) < 0.01

def test_the_whole_augmentation_draws_as_timms():
    """RandAugment may make more of a rounding (equalize, posterize, solarize), but seldom."""
    apart = [np.abs(np.subtract(*both(p, DEIT, seed))) for p in PHOTOS for seed in range(15)]
    assert np.median([a.mean() for a in apart]) < 0.02 and np.mean([a.mean() for a in apart]) < 0.2

def test_a_crop_of_the_right_size_is_not_resized():
    whole = dict(PLAIN, input_size=(187, 251), scale=(1., 1.), ratio=(251 / 187, 251 / 187), hflip=0.)
    ours, theirs = both(NOISE, whole, 0)
    assert np.array_equal(ours, theirs) and np.array_equal(ours, np.asarray(NOISE))

def test_only_the_training_crop_is_replaced():
    steps = TRANSFORMS.build(dict(type='mmincubation.create_transform', **DEIT)).transforms
    assert [type(step) for step in steps[1:]] == [type(step) for step in timms(**DEIT).transforms[1:]]
    assert type(steps[0]) is ResizedCrop
    for settings in (dict(PLAIN, is_training=False), dict(PLAIN, interpolation='lanczos')):
        ours, theirs = create_transform(**settings), timms(**settings)
        assert [type(step) for step in ours.transforms] == [type(step) for step in theirs.transforms]
        assert not ours.takes_pixels

@pytest.mark.parametrize('shape', [(5, 7), (1, 1), (1, 9), (64, 64)])
def test_planes_are_the_same_values_in_one_piece(shape):
    pixels = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    views = [pixels.permute(2, 0, 1), pixels.permute(2, 0, 1).contiguous(), pixels.permute(2, 0, 1).flip(2),
             pixels[..., 0].expand(3, -1, -1), pixels.permute(2, 0, 1).float()]
    for view in views:
        assert planes(view).is_contiguous() and torch.equal(planes(view), view) and planes(view).dtype == view.dtype


@pytest.mark.parametrize('how', ['4:2:0', 'grey', 'cmyk'])
def test_a_sample_of_a_folder_is_timms_within_rounding(tmp_path, how):
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/x.jpg').write_bytes(JPEGS[how])
    samples = []
    for kind in ('mmincubation', 'timm.data'):
        pipeline = [dict(type=f'{kind}.create_transform', **PLAIN)]
        data = DATASETS.build(dict(type='mmincubation.ImageFolder', root=str(tmp_path), pipeline=pipeline))
        assert data[0]['inputs'].dtype == torch.uint8 and data[0]['inputs'].is_contiguous()
        random.seed(1), torch.manual_seed(1)
        samples.append(data[0]['inputs'].int())
    assert samples[0].shape == (3, 64, 64) and 0 < (samples[0] - samples[1]).abs().max() <= 3
