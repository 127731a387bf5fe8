"""Bring an image to a model as the test data come to it: by the transforms of the config."""
from os import PathLike, fspath
from typing import Any

import numpy as np
import torch
from mmcv.transforms import BaseTransform, Compose
from mmengine.dataset import pseudo_collate
from mmengine.registry import TRANSFORMS
from PIL import Image, ImageOps

from mmincubation.datasets.files import image_fault
from mmincubation.datasets.images import eight_bits, image_transform, planes, read_rgb
from mmincubation.engine.outputs import without_truth
from mmincubation.errors import ConfigError, naming


class ClassifierInput:
    """Prepare an image as a `ClsDataset` of this pipeline does; it must then have sides of `size` pixels, if known."""

    def __init__(self, pipeline: list[dict], size: int | None):
        self.transform, self.size = image_transform(pipeline), size

    def __call__(self, image: Any) -> dict:
        """Return the batch of one image: `inputs` (1, 3, H, W) uint8, and `labels`, which mean nothing."""
        path = path_of(image)
        with naming(path or 'the image'):
            pixels = read_rgb(path) if path else torch.from_numpy(rgb(image).copy()).permute(2, 0, 1)
            inputs = planes(self.transform(pixels))
            if self.size and (sides := tuple(inputs.shape[1:])) != (self.size, self.size):
                raise ConfigError(f'{path or "the image"}: {sides[1]} x {sides[0]} pixels after the transforms of '
                                  f'test_dataloader, the model takes {self.size} x {self.size}; add a resize there')
        return dict(inputs=inputs[None], labels=torch.zeros(1, dtype=torch.long))

    def read(self, path: str) -> np.ndarray:
        """Return the pixels of a file, (H, W, 3) uint8 in RGB order."""
        return read_rgb(path).permute(1, 2, 0).numpy()


class PackedInput:
    """Prepare an image as data sets of mmdet and mmseg do, by a pipeline without its annotations."""

    def __init__(self, pipeline: list[dict]):
        self.steps: list[BaseTransform] = [TRANSFORMS.build(step) for step in without_truth(pipeline)]
        if not self.steps or 'LoadImage' not in type(self.steps[0]).__name__:
            raise ConfigError('its first step does not load an image; write dict(type=\'LoadImageFromFile\') there')

    def __call__(self, image: Any) -> dict:
        """Return the batch of one image, as mmengine's `pseudo_collate` makes it."""
        path = path_of(image)
        with naming(path or 'the image'):
            data = dict(img_path=path or '', img_id=0)
            packed = Compose(self.steps)(data) if path else Compose(self.steps[1:])(data | self._loaded(image))
        return pseudo_collate([packed])

    def read(self, path: str) -> np.ndarray:
        """Return the pixels of a file, (H, W, 3) uint8 in RGB order; OpenCV turns them as their EXIF tag says."""
        pixels = np.atleast_3d(self.steps[0](dict(img_path=path))['img'])[..., 2::-1]  # of grey ones the one channel
        return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)), np.uint8)

    def _loaded(self, image: Any) -> dict:
        """Return what the first step, which reads files, would return of these pixels: in the order BGR."""
        if isinstance(image, Image.Image) and self._obeys_orientation():
            image = ImageOps.exif_transpose(image)
        pixels = np.ascontiguousarray(rgb(image)[..., ::-1])
        if getattr(self.steps[0], 'to_float32', False):
            pixels = pixels.astype(np.float32)
        return dict(img=pixels, img_shape=pixels.shape[:2], ori_shape=pixels.shape[:2])

    def _obeys_orientation(self) -> bool:
        """Whether the first step turns an image as its EXIF tag says; mmcv.imread lists what does not."""
        kind, backend = (getattr(self.steps[0], name, None) for name in ('color_type', 'imdecode_backend'))
        return kind in ('color', 'grayscale') and backend not in ('turbojpeg', 'tifffile')


def path_of(image: Any) -> str | None:
    """Return the path of an image that is given by its path; None for pixels.

    Raises:
        ConfigError: the file cannot be decoded.
    """
    if not isinstance(image, str | PathLike):
        return None
    if fault := image_fault(path := fspath(image)):
        raise ConfigError(f'{path}: {fault}')
    return path


def rgb(image: Any) -> np.ndarray:
    """Return pixels (H, W, 3) uint8 in RGB order of a PIL image or of such an array.

    Raises:
        ConfigError: it is something else.
        OSError: a PIL image of 32 bits a pixel, whose value for white is unknown.
    """
    if isinstance(image, Image.Image):
        return eight_bits(image)
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3:
        return image
    what = f'an array {image.shape} of {image.dtype}' if isinstance(image, np.ndarray) else f'a {type(image).__name__}'
    raise ConfigError(f'{what} is no image: give a path, a PIL image, or an array (H, W, 3) of uint8 in RGB order')
