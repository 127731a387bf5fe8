"""Measure the peak memory of a training step that really runs, from the allocator's record."""
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile


def resident(step) -> int:
    """Return the bytes that a step keeps on its device between two calls: weights, buffers, gradients, optimiser
    state.
    """
    tensors = [*step.model.parameters(), *step.model.buffers()]
    tensors += [p.grad for p in step.model.parameters() if p.grad is not None]
    for optimizer in step.optimizers:
        tensors += [v for state in optimizer.state.values() for v in state.values() if isinstance(v, torch.Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors if t.device.type == step.device.type)


def peak(step) -> int:
    """Return the peak bytes of one call: what the step keeps and what it adds, whatever else is in memory."""
    if step.device.type == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        kept = resident(step)
        step()
        return kept + torch.cuda.max_memory_allocated() - before
    kept = resident(step)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        step()
    return kept + allocated(prof)


def allocated(prof: profile) -> int:
    """Return the largest sum of bytes that the CPU allocator gave minus those that it took back."""
    events = [e for e in prof.profiler.kineto_results.events() if e.name() == '[memory]']
    sizes = [e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())]
    return int(np.cumsum(sizes).max())
