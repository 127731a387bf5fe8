"""The precision in which mmcv's ops are computed."""
import torch
from torch import Tensor


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return `tensor` in float32 if it is float16 or bfloat16; float32 holds every such value.

    torchvision has no bfloat16 kernels, and backward runs outside of autocast.
    """
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
