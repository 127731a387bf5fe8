"""Decode and transform images for classification: RGB, uint8, as few copies as possible."""
from collections.abc import Callable

import cv2
import numpy as np
import torch
from mmengine.registry import TRANSFORMS
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.transforms import v2


def planes(image: torch.Tensor) -> torch.Tensor:
    """Return an equal image (3, H, W) that is contiguous in memory, so that stacking a batch copies large blocks."""
    pixels = image.permute(1, 2, 0)
    if image.is_contiguous() or not pixels.is_contiguous():
        return image.contiguous()
    pixels = pixels.numpy()
    found = np.empty(image.shape, pixels.dtype)
    cv2.split(pixels, list(found))  # torch and NumPy would copy value by value
    return torch.from_numpy(found)


def read_rgb(file) -> torch.Tensor:
    """Read an RGB image (3, H, W) uint8, with colours last in memory, from a path or a binary file.

    Orientation tags are ignored, as in torchvision's ImageFolder. torchvision decodes JPEG to the same pixels as
    Pillow, with three bytes a pixel instead of four. Pillow reads everything else, and JPEG that torchvision refuses.

    Raises:
        OSError: the file is not an image, or has 32 bits a pixel.
    """
    with Image.open(file) as image:  # reads only the header
        if image.format == 'JPEG' and image.mode in ('L', 'RGB'):
            try:
                return _decode_jpeg(image)
            except RuntimeError:  # Pillow reads some that torchvision refuses, or says what is wrong
                pass
        return torch.from_numpy(eight_bits(image)).permute(2, 0, 1)


def eight_bits(image: Image.Image) -> np.ndarray:
    """Return the pixels (H, W, 3) uint8 of a PIL image in RGB order, a copy.

    Of 16 bits the upper 8 are kept, as in OpenCV; Pillow would clip values to 255.

    Raises:
        OSError: the image has 32 bits a pixel, whose value for white is unknown.
    """
    if image.mode.startswith('I;16'):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    elif image.mode in ('I', 'F'):
        raise OSError(f'pixels of 32 bits (mode {image.mode}) have no known range')
    return np.array(image.convert('RGB'))


def _decode_jpeg(image: Image.Image) -> torch.Tensor:
    image.fp.seek(0)
    return decode_jpeg(torch.frombuffer(bytearray(image.fp.read()), dtype=torch.uint8)).expand(3, -1, -1)


def _unchanged(image: torch.Tensor) -> torch.Tensor:
    return image


def image_transform(pipeline: list[dict]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what a pipeline makes of an image, (3, H, W) uint8 in and out; `ClsDataset` describes `pipeline`."""
    steps = [TRANSFORMS.build(t) for t in pipeline]
    if not steps:
        return _unchanged
    if not getattr(steps[0], 'takes_pixels', False):
        steps.insert(0, v2.ToPILImage())
    return v2.Compose([*steps, v2.PILToTensor()])
