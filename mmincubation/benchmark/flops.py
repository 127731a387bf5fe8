"""Count the FLOPs of a step, and measure how fast the device multiplies matrices."""
import statistics
from collections.abc import Callable
from time import perf_counter

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

aten = torch.ops.aten
SIDE = dict(cpu=2048, cuda=8192)
CALLS = dict(cpu=1, cuda=10)  # timed together: on a GPU only the last one is waited for


def _forward(query, key, value, *args, out_val=None, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _backward(grad, query, key, value, *args, out_val=None, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)


# torch's counter knows the attention of GPUs, not that of CPUs.
CPU_ATTENTION = {aten._scaled_dot_product_flash_attention_for_cpu: _forward,
                 aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward}


def count_flops(step: Callable[[], object]) -> int:
    """Return the FLOPs of a call, backward included: matrix products, convolutions and attention.

    A multiply-add is two FLOPs. Compiled code runs uncompiled for the count.
    """
    with torch.compiler.set_stance('force_eager'), \
            FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
        step()
    return counter.get_total_flops()


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished all its work."""
    if device.type == 'cuda':
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, calls: int) -> float:
    """Return the mean seconds of `calls` calls; the clock stops when the device has finished them."""
    synchronize(device)
    start = perf_counter()
    for _ in range(calls):
        call()
    synchronize(device)
    return (perf_counter() - start) / calls


def summary(values: list[float]) -> dict:
    """Return n, median, min and max of repeated measurements."""
    return dict(n=len(values), median=statistics.median(values), min=min(values), max=max(values))


def matrix_rates(device: torch.device, dtype: torch.dtype, repeats: int = 5, side: int | None = None) -> list[float]:
    """Return the FLOP/s of `repeats` products of two square matrices, the most that a step could reach.

    Two more products run before as a warm-up.
    """
    side = side or SIDE[device.type]
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = [seconds(lambda: torch.mm(a, b, out=out), device, CALLS[device.type]) for _ in range(repeats + 2)]
    return [2 * side**3 / time for time in times[2:]]
