"""Numbers that a training step computes stay on the device until somebody reads them: no step waits for the host."""
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
    """mmengine's RuntimeInfoHook, which does not wait in each step for losses and gradient norms to arrive.

    The message hub gets them, all and in their order, in one transfer: before a log line, the end of an epoch, a
    validation (see `read_next`), and before a checkpoint (`ToolRunner.save_checkpoint` calls `settle`). So what is
    logged is what mmengine logs. The tools put this hook in the place of every plain `RuntimeInfoHook`.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[str, Tensor | float]] = []
        self._wrapper: OptimWrapper | OptimWrapperDict | None = None

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Look at the norms of the current optimiser, too; phases have their own."""
        super().before_train_iter(runner, batch_idx, data_batch)
        if runner.optim_wrapper is not self._wrapper:
            self._wrapper = runner.optim_wrapper
            for wrapper in wrappers_of(self._wrapper):
                if wrapper.clip_grad_kwargs:
                    wrapper.clip_func = self._keep_norm(wrapper.clip_func, f'train/{wrapper.grad_name}')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs: dict | None = None) -> None:
        """Keep the step's numbers; hand them over if they are read next."""
        self._waiting += [(f'train/{key}', value.detach() if isinstance(value, Tensor) else value)
                          for key, value in (outputs or {}).items()]
        if read_next(runner, batch_idx):
            self.settle(runner)

    def before_val(self, runner) -> None:
        """A validation may come between two log lines."""
        self.settle(runner)
        super().before_val(runner)

    def settle(self, runner) -> None:
        """Hand over what waits."""
        waiting, self._waiting = self._waiting, []
        for key, value in zip((key for key, _ in waiting), on_host([value for _, value in waiting]), strict=True):
            runner.message_hub.update_scalar(key, value)

    def _keep_norm(self, clip, key: str):
        """`clip` without its result, which mmengine would wait for."""

        def clipped(*args, **kwargs) -> None:
            norm = clip(*args, **kwargs)
            if norm is not None:
                self._waiting.append((key, full_tensor(norm.detach())))

        return clipped


def wrappers_of(wrapper: OptimWrapper | OptimWrapperDict) -> list[OptimWrapper]:
    """All wrappers of one optimiser in what a Runner has."""
    return list(wrapper.values()) if isinstance(wrapper, OptimWrapperDict) else [wrapper]


def on_host(values: list) -> list:
    """Numbers, of which those that are tensors of one element become Python's; one transfer per device and dtype."""
    found = list(values)
    tensors = [(str((value.device, value.dtype)), i) for i, value in enumerate(values) if isinstance(value, Tensor)]
    for _, group in groupby(sorted(tensors), key=lambda pair: pair[0]):
        places = [i for _, i in group]
        numbers = torch.stack([values[i].reshape(()) for i in places]).tolist()
        for i, number in zip(places, numbers, strict=True):
            found[i] = number
    return found


def read_next(runner, batch_idx: int) -> bool:
    """Whether the host waits for the device right after this iteration, on every rank: what an iteration computed is
    then written to the log, or comes to the end of an epoch, or before a validation."""
    done, loop = runner.iter + 1, runner.train_loop
    if batch_idx + 1 == len(runner.train_dataloader) or done == runner.max_iters or done % LONGEST == 0:
        return True
    if isinstance(loop, IterBasedTrainLoop) and runner.val_loop is not None and done % loop.val_interval == 0:
        return True  # not only before_val: the wait is training time
    return any(hook.every_n_inner_iters(batch_idx, hook.interval)
               for hook in runner.hooks if isinstance(hook, LoggerHook))
