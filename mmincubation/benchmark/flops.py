"""FLOPs that a step executes, and the rate at which this device multiplies matrices."""
import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
SIDE = dict(cpu=2048, cuda=8192)
CALLS = dict(cpu=1, cuda=10)  # between two looks at the clock: on a GPU only the last is waited for


def _forward(query, key, value, *args, out_val=None, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(grad, query, key, value, *args, out_val=None, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch's counter knows the attention of GPUs, not that of CPUs.
CPU_ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu: _forward,
                 aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward}


def count_flops(step: Callable[[], object]) -> int:
    """FLOPs of the matrix products, convolutions and attentions that a call executes, backward included; a
    multiply-add is two. Compiled code runs uncompiled for it."""
    with torch.compiler.set_stance('force_eager'), \
            FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        step()
    return counter.get_total_flops()


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Time of one of so many calls, after which the device is waited for."""
    synchronize(device)
    start = perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return (perf_counter() - start) / calls


def summary(values: list[float]) -> dict:
    """n, median, min and max of repeated measurements."""
    return dict(n=len(values), median=statistics.median(values), min=min(values), max=max(values))


def matrix_rates(device: torch.device, dtype: torch.dtype, repeats: int = 5, side: int | None = None) -> list[float]:
    """FLOP/s of products of two square matrices: what a step could reach at most; two warm-up products are left out."""
    side = side or SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = [seconds(lambda: torch.mm(a, b, out=out), device, CALLS[device.type]) for _ in range(repeats + 2)]
    return [2 * side**3 / time for time in times[2:]]
