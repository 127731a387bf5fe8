"""The size of an image file is the one that training sees."""
import cv2
import numpy as np
import pytest
from PIL import Image

from mmincubation.datasets.files import ORIENTATION, image_size, turned_in_place


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('tag', range(10))
def test_the_size_is_that_of_the_turned_image(tmp_path, tag, suffix):
    exif, path = Image.Exif(), tmp_path / f'a.{suffix}'
    exif[ORIENTATION] = tag
    Image.new('RGB', (30, 20)).save(path, exif=exif)
    height, width = cv2.imread(str(path)).shape[:2]
    assert image_size(path) == (width, height)
    if suffix == 'jpg':
        assert (width, height) == ((20, 30) if tag in (5, 6, 7, 8) else (30, 20))


@pytest.mark.parametrize('size, tags', [((8, 8), {2, 3, 4, 5, 6, 7, 8}), ((8, 6), {2, 3, 4})])
def test_turns_that_no_size_shows_are_those_of_opencv(tmp_path, size, tags):
    """A picture whose corners differ is another to OpenCV, in the same size."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for tag in range(1, 9):
        exif, path = Image.Exif(), str(tmp_path / f'{tag}.png')
        exif[ORIENTATION] = tag
        Image.fromarray(pixels).save(path, exif=exif)
        seen = cv2.imread(path, cv2.IMREAD_COLOR)[..., ::-1]
        other = seen.shape == pixels.shape and not np.array_equal(seen, pixels)
        assert turned_in_place(path) == other == (tag in tags)
