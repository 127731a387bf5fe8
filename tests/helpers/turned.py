"""Images that OpenCV turns."""
from PIL import Image

from mmincubation.datasets.files import ORIENTATION


def turn(path) -> str:
    """Give one of four images a tag that turns it upside down; return what check.py says of it."""
    exif = Image.Exif()
    exif[ORIENTATION] = 3
    Image.open(path).save(path, exif=exif)
    return f'1 of 4 images read are turned or mirrored by their EXIF tag ({path})'
