"""Sliding windows over images that are smaller than a window."""
import torch.nn.functional as F
from torch import Tensor, nn


def pad_small_images(model: nn.Module) -> None:
    """Let mmseg's segmentors that slide a window pad images to it where the network takes no smaller ones.

    Where the stock segmentor can predict, the prediction is its own.
    """
    for module in model.modules():
        if hasattr(module, 'slide_inference') and (getattr(module, 'test_cfg', None) or {}).get('mode') == 'slide':
            module.slide_inference = _padding(module.slide_inference, module.test_cfg['crop_size'])


def _padding(slide, window: tuple[int, int]):
    def slide_inference(inputs: Tensor, batch_img_metas: list[dict]) -> Tensor:
        """Return logits (B, classes, H, W) of images (B, 3, H, W)."""
        try:
            return slide(inputs, batch_img_metas)
        except RuntimeError:
            height, width = inputs.shape[2:]
            below, right = max(window[0] - height, 0), max(window[1] - width, 0)
            if not below and not right:
                raise
            return slide(F.pad(inputs, (0, right, 0, below)), batch_img_metas)[..., :height, :width]

    return slide_inference
