"""timm's training augmentation with a faster crop: the same draws and boxes, resized by torch's kernel for bytes."""
import random

import torch
from PIL import Image
from timm import data as timm_data
from timm.data.transforms import RandomResizedCropAndInterpolation as TimmCrop
from torch.nn.functional import interpolate

from mmincubation.registry import TRANSFORMS

KERNELS = ('bilinear', 'bicubic')  # torch's for bytes with antialiasing; Pillow has more


class ResizedCrop(TimmCrop):
    """timm's random crop, of a picture (3, H, W) uint8; gives a PIL image for what timm does next.

    Boxes and draws are timm's own. Values differ from Pillow's by rounding alone (docs/measurements/datapath.md has the
    bound): the filter is the same and antialiases, torch's weights are 16 bits wide and its kernel uses the CPU's
    vectors.
    """
    takes_pixels = True

    def __call__(self, pixels: torch.Tensor) -> Image.Image:
        top, left, height, width = self.get_params(pixels, self.scale, self.ratio)
        kernel = random.choice(self.interpolation) if isinstance(self.interpolation, tuple) else self.interpolation
        # Colours last, in one piece: so the result is too, and Pillow takes it without another copy.
        crop = pixels.permute(1, 2, 0)[top:top + height, left:left + width].contiguous()
        if crop.shape[:2] != self.size:
            crop = interpolate(crop.permute(2, 0, 1)[None], self.size, mode=kernel.value, antialias=True)
            crop = crop[0].permute(1, 2, 0).contiguous()
        return Image.fromarray(crop.numpy())


@TRANSFORMS.register_module()
def create_transform(**settings):
    """timm's `create_transform` with all its arguments; its random resized crop is `ResizedCrop`.

    Everything else, evaluation too, is left as timm makes it.
    """
    transform = timm_data.create_transform(**settings)
    transform.transforms = [_faster(step) for step in transform.transforms]
    transform.takes_pixels = getattr(transform.transforms[0], 'takes_pixels', False)
    return transform


create_transform.makes = lambda: timm_data.create_transform  # whose keys a config may give; see engine/signatures.py


def _faster(step):
    """A `ResizedCrop` for timm's, if torch has its kernels."""
    if type(step) is not TimmCrop:
        return step
    kernels = step.interpolation if isinstance(step.interpolation, tuple) else (step.interpolation, )
    if any(kernel.value not in KERNELS for kernel in kernels):
        return step
    faster = ResizedCrop(step.size, step.scale, step.ratio)
    faster.interpolation = step.interpolation
    return faster
