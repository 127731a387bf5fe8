"""Parts of a model in bfloat16, whatever the rest computes in."""
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def bfloat16(on: bool, inputs: Tensor) -> AbstractContextManager:
    """bfloat16 autocast on the device of `inputs`; off, the caller's own precision (its autocast too) goes on."""
    return torch.autocast(inputs.device.type, torch.bfloat16) if on else nullcontext()
