"""Read an image, or say in two words why it cannot be read."""
import os
from pathlib import Path

from PIL import Image

Image.MAX_IMAGE_PIXELS = None  # Pillow's limit guards web services; the data are the user's own, also gigapixel ones


def decode_image(path: str | Path) -> str | Image.Image:
    """Return the decoded image, or in words why it cannot be read."""
    try:
        if not os.path.getsize(path):
            return 'empty file'
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        return 'missing file'
    except Exception as error:  # damaged images raise anything
        return 'truncated image' if 'truncated' in str(error) else 'unreadable image'


def image_fault(path: str | Path) -> str | None:
    """Return in words why an image cannot be decoded; None if it can."""
    found = decode_image(path)
    return found if isinstance(found, str) else None


def image_size(path: str | Path) -> str | tuple[int, int]:
    """Return (width, height) from an image's header, or in words why it cannot be read."""
    try:
        if not os.path.getsize(path):
            return 'empty file'
        with Image.open(path) as image:
            return image.size
    except FileNotFoundError:
        return 'missing file'
    except Exception:
        return 'unreadable image'
