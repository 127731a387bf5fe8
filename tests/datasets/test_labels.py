"""Label pictures: what their files may be, which are listed, and that a data set of one class is told."""
import io
import struct
import zlib

import numpy as np
import pytest
from mmengine.registry import DATASETS, init_default_scope
from PIL import Image

from mmincubation.datasets.checked import CheckedDataset
from mmincubation.datasets.labels import left_out, require_classes
from mmincubation.errors import ConfigError, DataError

LABELS = np.arange(64, dtype=np.uint8).reshape(8, 8) % 2


def segmentation(root, labels=None, count: int = 3, **more) -> CheckedDataset:
    """A data set of two classes; `labels` is what is drawn into each label picture."""
    for kind in ('img', 'seg'):
        (root / kind).mkdir(exist_ok=True)
    for i in range(count):
        Image.new('RGB', (8, 8)).save(root / f'img/{i}.png')
        if labels is not None:
            Image.fromarray(labels).save(root / f'seg/{i}.png')
    init_default_scope('mmseg')
    dataset = dict(type='BaseSegDataset', data_root=str(root), img_suffix='.png',
                   metainfo=dict(classes=('ground', 'cat')), data_prefix=dict(img_path='img', seg_map_path='seg'),
                   pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')])
    return DATASETS.build(dict(type='mmincubation.CheckedDataset', place='train_dataloader.dataset', num_classes=2,
                               dataset=dataset | more))


def stored(picture: Image.Image, kind: str = 'PNG', **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def palette(*colours: tuple[int, int, int], labels: np.ndarray = LABELS) -> Image.Image:
    """A picture with these colours, or with greys that are the numbers."""
    picture = Image.frombytes('P', labels.shape[::-1], labels.tobytes())
    picture.putpalette([value for colour in colours or [(i, i, i) for i in range(256)] for value in colour])
    return picture


def grey(bits: int) -> bytes:
    """PNG of the labels in 2 or 4 bits, which Pillow reads and does not write."""
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', zlib.crc32(kind + content))

    rows = (''.join(f'{value:0{bits}b}' for value in row) for row in LABELS.tolist())
    lines = b''.join(b'\0' + int(row, 2).to_bytes(bits, 'big') for row in rows)  # eight pixels are `bits` bytes
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', 8, 8, bits, 0, 0, 0, 0)) + chunk(
        b'IDAT', zlib.compress(lines)) + chunk(b'IEND', b'')


BLACK, WHITE, RED, GREEN = (0, 0, 0), (255, ) * 3, (255, 0, 0), (0, 255, 0)


GREY = Image.fromarray(LABELS)
READ = {  # as class numbers
    'one byte': stored(GREY), 'palette': stored(palette()), 'colours': stored(palette(BLACK, RED)),
    'black and white': stored(palette(BLACK, WHITE)),
    'one colour': stored(palette(*[BLACK] * 256)), 'greys of unused numbers': stored(palette(BLACK, (1, ) * 3, WHITE)),
    'palette of a gif': stored(palette(BLACK, RED), 'GIF'), 'one bit': stored(Image.fromarray(LABELS > 0)),
    '16 bits': stored(Image.fromarray(LABELS.astype(np.uint16))), 'tiff': stored(GREY, 'TIFF'),
    '32 bits': stored(Image.fromarray(LABELS.astype(np.int32)), 'TIFF'),
    'bitmap': stored(GREY, 'BMP')}
LOSS = 'stored with loss'
REFUSED = {
    'jpeg': (stored(GREY, 'JPEG'), LOSS), 'webp': (stored(GREY.convert('RGB'), 'WEBP', quality=100), LOSS),
    'grey of 2 bits': (grey(2), 'grey label picture of 2 bits'),
    'grey of 4 bits': (grey(4), 'grey label picture of 4 bits'),
    'other greys': (stored(palette(BLACK, (7, ) * 3)), 'palette of greys .*: 1 is grey 7'),
    'greys of a bitmap': (stored(palette((3, ) * 3, (7, ) * 3), 'BMP'), 'palette of greys .*: 0 is grey 3'),
    'jpeg in tiff': (stored(GREY, 'TIFF', compression='jpeg'), LOSS),
    'colours': (stored(GREY.convert('RGB')), '3 channels'), 'alpha': (stored(GREY.convert('LA')), '2 channels'),
    'colours and alpha': (stored(GREY.convert('RGBA')), '4 channels'),
    '16 bits': (stored(Image.fromarray(LABELS.astype(np.uint16) + 256)), 'values above 255'),
    '32 bits': (stored(Image.fromarray(LABELS.astype(np.int32) + 65536), 'TIFF'), 'values above 255'),
    'another class': (stored(Image.fromarray(LABELS + 1)), r'no class \(0..1, 255 ignored\): 2')}


@pytest.mark.parametrize('how', READ)
def test_kinds_of_files_that_are_read_as_class_numbers(how, tmp_path):
    data = segmentation(tmp_path, LABELS)
    (tmp_path / 'seg/1.png').write_bytes(READ[how])
    assert np.array_equal(data[1]['gt_seg_map'], LABELS)


@pytest.mark.parametrize('how', REFUSED)
def test_kinds_of_files_that_are_refused_whatever_their_name(how, tmp_path):
    content, said = REFUSED[how]
    data = segmentation(tmp_path, LABELS)
    (tmp_path / 'seg/1.png').write_bytes(content)
    with pytest.raises(DataError, match=f'sample 1: {tmp_path}/seg/1.png: .*{said}'):
        data[1]


def test_the_ignored_label_is_the_data_sets(tmp_path):
    labels = LABELS.copy()
    labels[0] = 250
    assert (segmentation(tmp_path, labels, ignore_index=250)[0]['gt_seg_map'] == labels).all()
    with pytest.raises(DataError, match=r'no class \(0..1, 255 ignored\): 250'):
        segmentation(tmp_path, labels)[0]


def test_blank_lines_and_hidden_files_are_no_images(tmp_path):
    assert len(segmentation(tmp_path, LABELS)) == 3
    (tmp_path / 'list.txt').write_text('0\n\n2\n\n')
    listed = segmentation(tmp_path, ann_file='list.txt')
    assert [listed.get_data_info(i)['img_path'][-5:] for i in range(len(listed))] == ['0.png', '2.png']
    (tmp_path / 'img/.ipynb_checkpoints').mkdir()
    for name in ('.DS_Store', '._0.png', '.ipynb_checkpoints/0.png'):
        (tmp_path / 'img' / name).write_bytes(b'x')
    assert len(segmentation(tmp_path)) == 3


@pytest.mark.parametrize('apart', ['img', None])
def test_label_pictures_beside_their_images_are_no_images(apart, tmp_path):
    prefix = dict(img_path='img', seg_map_path=apart) if apart else dict(img_path='img')
    beside = dict(seg_map_suffix='_mask.png', data_prefix=prefix)
    segmentation(tmp_path)
    for i in range(3):
        (tmp_path / f'img/{i}_mask.png').write_bytes(READ['one byte'])
    data = segmentation(tmp_path, **beside, **{} if apart else dict(pipeline=[dict(type='LoadImageFromFile')]))
    assert [data.get_data_info(i)['img_path'][-5:] for i in range(len(data))] == ['0.png', '1.png', '2.png']
    assert not apart or np.array_equal(data[1]['gt_seg_map'], LABELS)
    # Elsewhere such a name is that of an image.
    assert len(segmentation(tmp_path, LABELS, count=0, seg_map_suffix='_mask.png')) == 6


def test_suffixes_in_a_list_of_names_are_told(tmp_path):
    (tmp_path / 'list.txt').write_text('0.png\n')
    for suffix in ('.png', '.jpg'):
        with pytest.raises(DataError, match=f'0.png{suffix}: missing file, but there is {tmp_path}/img/0.png: the '
                           f'suffix {suffix} is added to the names in ann_file;'):
            segmentation(tmp_path, LABELS, ann_file='list.txt', img_suffix=suffix)[0]


def test_images_of_another_suffix_are_named(tmp_path):
    assert left_out(segmentation(tmp_path, LABELS).dataset) is None
    for name in ('b.jpg', 'a.JPG', 'notes.txt'):
        (tmp_path / 'img' / name).write_bytes(b'x')
    assert left_out(segmentation(tmp_path).dataset) == (
        f"2 images that do not end with img_suffix='.png' are left out: {tmp_path}/img/a.JPG, ...; rename them, or "
        'correct img_suffix')
    with pytest.raises(DataError) as raised:
        segmentation(tmp_path, img_suffix='.bmp')
    assert str(raised.value) == (
        f"train_dataloader.dataset: there is no sample in it: no file in {tmp_path}/img ends with img_suffix='.bmp'; "
        f"5 images that do not end with img_suffix='.bmp' are left out: {tmp_path}/img/0.png, ...; rename them, or "
        'correct img_suffix')


GROUND = "in 3 of 3 label pictures every pixel is class 'ground' or ignored"


@pytest.mark.parametrize('value, more, said', [
    (0, {}, GROUND), (1, {}, "every pixel is class 'cat' or ignored"),
    (255, {}, r'every pixel is ignored \(255\)'), (250, dict(ignore_index=250), r'every pixel is ignored \(250\)'),
    (1, dict(reduce_zero_label=True), GROUND + r' \(255, and 0 in the file by reduce_zero_label\)'),
])
def test_a_data_set_of_one_class_is_refused(value, more, said, tmp_path):
    data = segmentation(tmp_path, np.full((8, 8), value, np.uint8), **more)
    with pytest.raises(ConfigError, match=said):
        require_classes(data.dataset)


def test_palettes_that_differ_are_refused_before_the_first_step(tmp_path):
    data = segmentation(tmp_path, LABELS)
    for colours in ((BLACK, RED), (BLACK, RED, GREEN)):  # numbers that no pixel has do not count
        (tmp_path / 'seg/1.png').write_bytes(stored(palette(BLACK, RED)))
        (tmp_path / 'seg/2.png').write_bytes(stored(palette(*colours)))
        assert require_classes(data.dataset) is None
    (tmp_path / 'seg/2.png').write_bytes(stored(palette()))  # greys that are the numbers: as good as no palette
    assert require_classes(data.dataset) is None
    (tmp_path / 'seg/2.png').write_bytes(stored(palette(BLACK, GREEN)))
    with pytest.raises(ConfigError, match=f'^{tmp_path}/seg/1.png and {tmp_path}/seg/2.png have palettes that give 1 '
                                          r'different colours, \(255, 0, 0\) and \(0, 255, 0\), so'):
        require_classes(data.dataset)


def test_the_ignored_number_may_have_any_colour(tmp_path):
    labels = np.where(LABELS == 0, 0, np.where(np.arange(8) < 4, 1, 255)).astype(np.uint8)
    data = segmentation(tmp_path, labels)
    for i, border in enumerate((GREEN, WHITE)):
        picture = palette(BLACK, RED, *[GREEN] * 253, border, labels=labels)
        (tmp_path / f'seg/{i}.png').write_bytes(stored(picture))
    (tmp_path / 'seg/2.png').write_bytes(stored(palette(BLACK, *[WHITE] * 255, labels=labels)))
    assert np.array_equal(data[2]['gt_seg_map'], labels)  # black and white
    (tmp_path / 'seg/2.png').write_bytes(stored(Image.fromarray(labels)))
    assert require_classes(data.dataset) is None


def test_a_sample_of_one_class_is_told_not_refused(tmp_path):
    data = segmentation(tmp_path, np.zeros((8, 8), np.uint8), count=40)
    assert require_classes(data.dataset).startswith("in 32 of 40 label pictures every pixel is class 'ground' or")


def test_pictures_that_cannot_be_read_are_told_when_their_turn_comes(tmp_path):
    data = segmentation(tmp_path, np.stack([LABELS * 255] * 3, -1))
    assert require_classes(data.dataset) is None
    assert require_classes(segmentation(tmp_path, LABELS).dataset) is None
