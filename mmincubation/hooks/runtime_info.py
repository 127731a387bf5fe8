"""Keep numbers that a training step computes on the device until the log needs them, so that no step waits."""
from itertools import groupby

import torch
from mmengine import hooks
from mmengine.hooks import LoggerHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import IterBasedTrainLoop
from torch import Tensor

from mmincubation.resumable.protocol import BaseHook
from mmincubation.vit.sharding import full_tensor

LONGEST = 1000  # iterations that wait to be read, where log lines are further apart


class RuntimeInfoHook(BaseHook, hooks.RuntimeInfoHook):
    """Pass losses and gradient norms to the message hub like mmengine's hook, but without a host sync in each step.

    The message hub gets all numbers, in their order, in one transfer: before a log line, the end of an epoch or a
    validation (see `read_next`), and before a checkpoint (`ToolRunner.save_checkpoint` calls `settle`). The log is the
    same as mmengine's. The tools put this hook in the place of every plain `RuntimeInfoHook`.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Tensor | float]] = []
        self._wrapper: OptimWrapper | OptimWrapperDict | None = None

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Record the gradient norms of the current optimiser too; each phase has its own optimiser."""
        super().before_train_iter(runner, batch_idx, data_batch)
        if runner.optim_wrapper is not self._wrapper:
            self._wrapper = runner.optim_wrapper
            for wrapper in wrappers_of(self._wrapper):
                if wrapper.clip_grad_kwargs:
                    wrapper.clip_func = self._keep_norm(wrapper.clip_func, f'train/{wrapper.grad_name}')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Keep the step's numbers; transfer them if they are read right after this step."""
        # A loss that is not detached would keep the graph of its step in memory.
        self._waiting += [(f'train/{key}', value.detach() if isinstance(value, Tensor) else value)
                          for key, value in (outputs or {}).items()]
        if read_next(runner, batch_idx):
            self.settle(runner)

    def before_val(self, runner) -> None:
        """Transfer the numbers first: a validation may come between two log lines."""
        self.settle(runner)
        super().before_val(runner)

    def settle(self, runner) -> None:
        """Transfer all kept numbers to the message hub."""
        waiting, self._waiting = self._waiting, []
        for key, value in zip((key for key, _ in waiting), on_host([value for _, value in waiting]), strict=True):
            runner.message_hub.update_scalar(key, value)

    def _keep_norm(self, clip, key: str):
        """Return `clip` without its result: mmengine would convert the norm to a number, which is a host sync."""

        def clipped(*args, **kwargs) -> None:
            norm = clip(*args, **kwargs)
            if norm is not None:
                self._waiting.append((key, full_tensor(norm.detach())))

        return clipped


def wrappers_of(wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """Return the wrappers of single optimisers in the optimiser wrapper of a Runner."""
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def on_host(values: list) -> list:
    """Return the values as Python numbers; one-element tensors need one transfer for each device and dtype."""
    found = list(values)
    # Tensors can only be stacked, and so moved together, if device and dtype are the same.
    tensors = [(str((value.device, value.dtype)), i) for i, value in enumerate(values) if isinstance(value, Tensor)]
    for _, group in groupby(sorted(tensors), key=lambda pair: pair[0]):
        places = [i for _, i in group]
        numbers = torch.stack([values[i].reshape(()) for i in places]).tolist()
        for i, number in zip(places, numbers, strict=True):
            found[i] = number
    return found


def read_next(runner, batch_idx: int) -> bool:
    """Return whether the host waits for the device right after this iteration, on every rank.

    It does before a log line, at the end of an epoch, before a validation, and at least every `LONGEST` iterations.
    """
    done, loop = runner.iter + 1, runner.train_loop
    if batch_idx + 1 == len(runner.train_dataloader) or done == runner.max_iters or done % LONGEST == 0:
        return True
    if isinstance(loop, IterBasedTrainLoop) and runner.val_loop is not None and done % loop.val_interval == 0:
        return True  # not only before_val: the wait is training time
    return any(hook.every_n_inner_iters(batch_idx, hook.interval)
               for hook in runner.hooks if isinstance(hook, LoggerHook))
