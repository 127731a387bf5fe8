"""The size of an image file is the one that training sees."""
import cv2
import pytest
from PIL import Image

from mmincubation.datasets.files import image_size


@pytest.mark.parametrize('suffix', ['jpg', 'png', 'webp'])
@pytest.mark.parametrize('tag', range(10))
def test_the_size_is_that_of_the_turned_image(tmp_path, tag, suffix):
    exif, path = Image.Exif(), tmp_path / f'a.{suffix}'
    exif[0x0112] = tag
    Image.new('RGB', (30, 20)).save(path, exif=exif)
    height, width = cv2.imread(str(path)).shape[:2]
    assert image_size(path) == (width, height)
    if suffix == 'jpg':
        assert (width, height) == ((20, 30) if tag in (5, 6, 7, 8) else (30, 20))
