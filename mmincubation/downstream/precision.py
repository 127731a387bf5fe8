"""bfloat16 for some layers of a model, at any precision of the others."""
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def bfloat16(on: bool, inputs: Tensor) -> AbstractContextManager:
    """Return bfloat16 autocast on the device of `inputs` if `on`, else a context that keeps the caller's precision."""
    return torch.autocast(inputs.device.type, torch.bfloat16) if on else nullcontext()
