"""timm's training augmentation with a faster crop: the same draws and boxes, resized by torch's uint8 kernel."""
import random

import torch
from PIL import Image
from timm import data as timm_data
from timm.data.transforms import RandomResizedCropAndInterpolation as TimmCrop
from torch.nn.functional import interpolate

from mmincubation.registry import TRANSFORMS

KERNELS = ('bilinear', 'bicubic')  # torch's for uint8 with antialiasing; Pillow has more


class ResizedCrop(TimmCrop):
    """timm's random resized crop of an image (3, H, W) uint8, to a PIL image for timm's next transform.

    Boxes and draws are timm's. Values differ from Pillow's only by rounding (docs/measurements/datapath.md has the
    bound): the antialiasing filter is the same, but torch's weights have 16 bits.
    """
    takes_pixels = True

    def __call__(self, pixels: torch.Tensor) -> Image.Image:
        top, left, height, width = self.get_params(pixels, self.scale, self.ratio)
        kernel = random.choice(self.interpolation) if isinstance(self.interpolation, tuple) else self.interpolation
        # Contiguous with colours last, so that the result is too, and Pillow takes it without another copy.
        crop = pixels.permute(1, 2, 0)[top:top + height, left:left + width].contiguous()
        if crop.shape[:2] != self.size:
            crop = interpolate(crop.permute(2, 0, 1)[None], self.size, mode=kernel.value, antialias=True)
            crop = crop[0].permute(1, 2, 0).contiguous()
        return Image.fromarray(crop.numpy())


@TRANSFORMS.register_module()
def create_transform(**settings):
    """Return timm's `create_transform(**settings)` with `ResizedCrop` as its random resized crop.

    All other transforms, and those of evaluation, are timm's.
    """
    transform = timm_data.create_transform(**settings)
    transform.transforms = [_faster(step) for step in transform.transforms]
    transform.takes_pixels = getattr(transform.transforms[0], 'takes_pixels', False)
    return transform


create_transform.makes = lambda: timm_data.create_transform  # whose keys a config may give; see engine/signatures.py


def _faster(step):
    """Return a `ResizedCrop` for timm's crop if torch has its kernels, else the step itself."""
    if type(step) is not TimmCrop:
        return step
    kernels = step.interpolation if isinstance(step.interpolation, tuple) else (step.interpolation, )
    if any(kernel.value not in KERNELS for kernel in kernels):
        return step
    faster = ResizedCrop(step.size, step.scale, step.ratio)
    faster.interpolation = step.interpolation
    return faster
