"""Bad images and labels under both policies: a line that names it, or the next good sample, counted."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mmincubation.datasets.files import image_fault
from mmincubation.errors import DataError
from tests.helpers.damage import (
    BAD,
    UNREADABLE,
    build,
    change_image,
    encoded,
    gradient,
    image_file,
    label_file,
    names,
    put,
    refuses_and_skips,
)

TASKS = ['classification', 'detection', 'segmentation']


@pytest.mark.parametrize('task', TASKS)
@pytest.mark.parametrize('how', UNREADABLE)
def test_unreadable_images(task, how, root):
    if how == 'missing' and task == 'segmentation':
        return  # the list of images is the folder's; a missing label is below
    path = image_file(task, root)
    dataset = build(task, root)
    put(path, UNREADABLE[how])
    if how == 'missing' and task == 'classification':  # gone after the folder was read
        with pytest.raises(DataError, match=f'sample {BAD}: {path} cannot be read as an image'):
            dataset[BAD]
        return
    refuses_and_skips(task, root, f'sample {BAD}', str(path), workers=(0, 2) if how == 'half' else (0, ))


@pytest.mark.parametrize('cut', [0.3, 0.6, 0.9, 0.99])
@pytest.mark.parametrize('progressive', [False, True])
def test_a_truncated_jpeg_is_never_filled_with_grey(cut, progressive, root):
    """OpenCV 4 does fill it; the version of requirements.txt does not, and this holds it."""
    content = encoded(Image.fromarray(gradient(480, 640)), quality=90, progressive=progressive)
    path = image_file('segmentation', root)
    path.write_bytes(content[:int(cut * len(content))])
    with pytest.raises(DataError, match=f'{path}: truncated image; correct it, or .*data_errors=skip'):
        build('segmentation', root)[BAD]


def variants() -> dict[str, tuple[bytes, np.ndarray, int]]:
    """(file, RGB pixels it must give, tolerance) of pictures that are no plain 8-bit RGB."""
    rgb = gradient()
    grey = np.repeat(rgb[..., :1], 3, 2)
    wide = dict(grey=rgb[..., 0], colour=rgb[..., ::-1])
    sixteen = {k: cv2.imencode('.png', v.astype(np.uint16) * 256 + 77)[1].tobytes() for k, v in wide.items()}
    palette = Image.fromarray(rgb).convert('P')
    return {
        'cmyk': (encoded(Image.fromarray(rgb).convert('CMYK'), quality=95), rgb, 6),
        'grey jpeg': (encoded(Image.fromarray(rgb[..., 0]), quality=95), grey, 3),
        'grey png': (encoded(Image.fromarray(rgb[..., 0]), 'PNG'), grey, 0),
        '16 bits grey': (sixteen['grey'], grey, 0), '16 bits colour': (sixteen['colour'], rgb, 0),
        'palette': (encoded(palette, 'PNG'), np.asarray(palette.convert('RGB')), 0),
        'transparent': (encoded(Image.fromarray(np.dstack([rgb, rgb[..., 0]])), 'PNG'), rgb, 0),
        'one pixel': (encoded(Image.fromarray(rgb[:1, :1]), 'PNG'), rgb[:1, :1], 0)}


@pytest.mark.parametrize('how', variants())
def test_uncommon_images_become_rgb(how, root):
    content, expected, tolerance = variants()[how]
    path = image_file('classification', root)
    path.write_bytes(content)
    seen = build('classification', root)[BAD]['inputs'].numpy().transpose(1, 2, 0)
    assert seen.shape == expected.shape and np.abs(seen.astype(int) - expected).max() <= tolerance
    for task in ('detection', 'segmentation'):
        if (task, how) == ('segmentation', 'one pixel'):
            continue
        image_file(task, root).write_bytes(content)
        if task == 'detection':
            change_image(root, height=expected.shape[0], width=expected.shape[1])
        else:
            Image.fromarray(np.ones(expected.shape[:2], np.uint8)).save(label_file(root))
        dataset = build(task, root)
        dataset.pipeline.transforms[:] = [t for t in dataset.pipeline.transforms if 'Crop' not in type(t).__name__]
        seen = dataset[BAD]['inputs'].numpy()[::-1].transpose(1, 2, 0)  # OpenCV's BGR
        assert seen.shape == expected.shape and np.abs(seen.astype(int) - expected).max() <= tolerance


@pytest.mark.parametrize('task, said', [*zip(TASKS, ['32 bits (mode F)', *['failed to load'] * 2], strict=True)])
def test_pixels_without_a_range_are_refused(task, said, root):
    path = image_file(task, root)
    Image.fromarray(np.ones((8, 8), np.float32)).save(path, 'TIFF')
    refuses_and_skips(task, root, str(path), said, workers=(0, ))


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_an_orientation_tag_that_turns_the_image_away_from_its_annotations(task, root):
    exif = Image.Exif()
    exif[0x112] = 6
    path = image_file(task, root)
    Image.open(path).save(path, exif=exif)
    refuses_and_skips(task, root, str(path), workers=(0, ))


def relabel(change):
    def harm(root):
        path = label_file(root)
        Image.fromarray(change(np.asarray(Image.open(path)).copy())).save(path)
    return harm


def _stray(value):
    def change(labels):
        labels[0, 0] = value
        return labels
    return relabel(change)


LABELS = {
    'just above': (_stray(151), 'no class (0..149, 255 ignored): 150'),
    'far above': (_stray(254), 'no class (0..149, 255 ignored): 253'),
    'smaller': (relabel(lambda labels: labels[:-3]), 'labels of shape (55, 41), its image has (58, 41)'),
    'larger': (relabel(lambda labels: np.pad(labels, 2)), 'labels of shape (62, 45)'),
    'colours': (relabel(lambda labels: np.dstack([labels] * 3)), 'a label picture with 3 channels'),
    '16 bits': (relabel(lambda labels: labels.astype(np.uint16) + 256), 'a label picture of 16 bits'),
    'empty': (lambda root: label_file(root).write_bytes(b''), 'empty file'),
    'truncated': (lambda root: label_file(root).write_bytes(label_file(root).read_bytes()[:60]), 'truncated image'),
}


@pytest.mark.parametrize('how', LABELS)
def test_label_maps(how, root):
    harm, named = LABELS[how]
    harm(root)
    refuses_and_skips('segmentation', root, str(label_file(root)), named, workers=(0, ))


def test_a_missing_label_map(root):
    path = label_file(root)
    path.unlink()
    with pytest.raises(DataError, match=f'sample {BAD}: {path}: missing file'):
        build('segmentation', root)[BAD]
    dataset = build('segmentation', root, 'skip')
    assert names('segmentation', [dataset[BAD]]) == names('segmentation', [dataset[BAD + 1]])


def test_label_maps_with_all_classes_and_255_are_right(root):
    values = np.resize(np.r_[0:151, 255].astype(np.uint8), (58, 41))
    Image.fromarray(values).save(label_file(root))
    seen = build('segmentation', root)
    seen.pipeline.transforms.pop(2)
    labels = seen[BAD]['data_samples'].gt_sem_seg.data.numpy()
    assert sorted(np.unique(labels)) == [*range(150), 255]


def test_one_pixel_of_labels(root):
    """mmseg makes a number of it, which it then cannot index."""
    for path in (image_file('segmentation', root), label_file(root)):
        Image.fromarray(np.ones((1, 1), np.uint8)).save(path)
    refuses_and_skips('segmentation', root, str(label_file(root)), workers=(0, ))


@pytest.mark.parametrize('shape', [(1, 7), (7, 1)])
def test_label_maps_with_a_side_of_one_pixel(shape, root):
    """mmseg squeezes it away."""
    for path in (image_file('segmentation', root), label_file(root)):
        Image.fromarray(np.full(shape, 9, np.uint8)).save(path)
    labels = build('segmentation', root)[BAD]['data_samples'].gt_sem_seg.data
    assert labels.shape == (1, *shape) and (labels == 8).all()


def test_backslashes_in_a_name_are_seen(tmp_path):
    (tmp_path / 'sub').mkdir()
    Image.new('RGB', (4, 4)).save(tmp_path / 'sub/a.png')
    assert image_fault(f'{tmp_path}/sub\\a.png') == (
        f'missing file, but there is {tmp_path}/sub/a.png: write / for \\ in its name')
    assert image_fault(f'{tmp_path}/sub\\b.png') == image_fault(tmp_path / 'none.png') == 'missing file'
