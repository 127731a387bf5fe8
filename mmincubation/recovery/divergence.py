"""Divergence: a loss, gradient or weight that is not finite stops the run before anything of it is kept."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from mmincubation.errors import DivergenceError
from mmincubation.hooks.cost import phase_name
from mmincubation.hooks.runtime_info import read_next, wrappers_of
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import local_shard, unwrap

from .checkpoint_files import checkpoints_of

SHOWN = 4  # files of a batch that the error names; the log has all


class FiniteGuard(BaseHook):
    """Leaves out a step whose loss or gradient is not finite on some rank, on all ranks, and stops the run; with
    `skip`, only after that many steps left out. The tools add it to every run.

    The check runs on the device, between backward and step: a flag, joined over the ranks, which fused optimisers obey
    on the device (`found_inf`). The host reads the flags of all steps since where it waits anyway: before a log line,
    the end of an epoch, a validation, a checkpoint. Until then a GPU goes on training, without the steps left out.
    After each step it is read where that is free (CPU), where steps may be left out (`skip`: they are counted, and
    buffers put back), and where an EMAHook must know. Optimisers that are not fused cannot obey: for them it is read
    before the step. An AmpOptimWrapper's loss scaler looks for itself, and is left alone.

    A step left out changes neither weights, optimiser, EMA nor buffers (batch statistics), but counts as an iteration:
    schedules go on. Weights are checked before each validation and in each checkpoint.
    """
    priority = 'HIGH'  # after RuntimeInfoHook, which waits for the losses; before EMA, counters and checkpoints

    def __init__(self, skip: int = 0) -> None:
        self.allowed, self.skipped, self.left_out = skip, 0, False
        self._wrapper: OptimWrapper | OptimWrapperDict | None = None
        self._losses: list[Tensor] = []
        self._buffers: list[tuple[Tensor, Tensor]] = []
        self._since_update: list[tuple[dict, list[str]]] = []
        self._flag: Flag | None = None
        self._unread: list[Update] = []
        self._averages, self._group = False, None

    def before_train(self, runner) -> None:
        """Look at the losses from now on, and keep the EMA from averaging after a step left out."""
        unwrap(runner.model).register_forward_hook(self._see_losses, with_kwargs=True)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                self._averages = True
                hook.after_train_iter = self._unless_left_out(hook.after_train_iter)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Look at the gradients of the current optimiser; phases have their own."""
        self._group = loop_protocol(runner).data_group  # other groups' steps are their own
        if runner.optim_wrapper is not self._wrapper:
            self._wrapper, self._losses = runner.optim_wrapper, []
            for part in wrappers_of(self._wrapper):
                if not hasattr(part, 'loss_scaler'):
                    part.optimizer.register_step_pre_hook(self._before_step)
        if self.allowed and not self._buffers:
            self._buffers = [(b, b.clone()) for b in unwrap(runner.model).buffers()]
        self._flag = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Note what a report would say, without the images; read the flag, if it is time to."""
        losses = {name: torch.as_tensor(value).detach() for name, value in (outputs or {}).items() if 'loss' in name}
        self._since_update.append((losses, batch_files(data_batch, runner.train_dataloader.dataset)))
        self.left_out, at_once = False, bool(self.allowed) or self._averages
        if self._flag is not None:
            self._unread.append(Update(runner.iter + 1, self._flag, self._since_update))
            self._losses, self._buffers, self._since_update = [], [], []
            at_once |= self._flag.free
        if at_once or read_next(runner, batch_idx):
            self.settle(runner)

    def settle(self, runner) -> None:
        """Read the flags of the steps since the last time, on every rank, and stop or count."""
        updates, self._unread = self._unread, []
        for update in updates:
            if update.flag.read():
                self.left_out, self.skipped = True, self.skipped + 1
                text = self._report(runner, update)
                if self.skipped > self.allowed:
                    raise DivergenceError(f'{text}; {advice(runner)}')
                runner.logger.warning(f'{text}; the step is left out ({self.skipped} of {self.allowed} allowed)')

    def before_val_epoch(self, runner) -> None:
        """No metric of weights that are not finite, nor after a step that should have ended the run."""
        self.settle(runner)
        check_weights(runner, unwrap(runner.model).state_dict())

    def after_train_epoch(self, runner) -> None:
        """On every rank, where the checkpoint of an epoch is about to be written."""
        self.settle(runner)
        check_weights(runner, unwrap(runner.model).state_dict())

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """No checkpoint with weights that are not finite; the count goes with it."""
        check_weights(runner, checkpoint['state_dict'])
        checkpoint['finite_guard'] = dict(skipped=self.skipped)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Go on counting; weights of another run (`load_from`) bring no count."""
        if runner._resume:
            self.skipped = checkpoint.get('finite_guard', dict(skipped=0))['skipped']

    def add_to_result(self, runner, result: dict, folders: list) -> None:
        """Add how many steps were left out, if the run allowed any."""
        if self.allowed:
            result['skipped_steps'] = self.skipped

    def _see_losses(self, model: nn.Module, args: tuple, kwargs: dict, output) -> None:
        if kwargs.get('mode') == 'loss' and isinstance(output, dict):
            for name, value in output.items():
                if 'loss' in name:  # what mmengine adds up
                    values = value if isinstance(value, list | tuple) else [value]
                    self._losses += [v.detach().float().sum() for v in values]

    def _before_step(self, optimizer, args, kwargs) -> None:
        """Between backward and step; queues work on the device and waits for nothing, if the optimiser is fused."""
        grads = [local_shard(p.grad) for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        if not grads:
            return
        largest = get_total_norm([grad for grad in grads if grad.numel()], float('inf'))
        values = torch.stack([largest.float(), *(loss.to(largest.device) for loss in self._losses)])
        flag = (~values.isfinite()).any().float()
        if get_world_size() > 1:
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
        for buffer, before in self._buffers:
            buffer.copy_(torch.where(flag > 0, before, buffer))
        self._flag = Flag(flag if self._flag is None else torch.maximum(self._flag.on_device, flag))
        if getattr(optimizer, '_step_supports_amp_scaling', False):
            optimizer.found_inf = flag
        elif flag:
            optimizer.zero_grad(set_to_none=True)

    def _unless_left_out(self, method):

        def call(*args, **kwargs):
            if not self.left_out:
                method(*args, **kwargs)

        return call

    def _report(self, runner, update: Update) -> str:
        """What was not finite, on which rank, with which files; the log has every file."""
        here = [(get_rank(), {name: value.item() for name, value in losses.items()}, files)
                for losses, files in update.batches]
        seen = [batch for rank in all_gather_object(here, self._group) for batch in rank]
        guilty = [batch for batch in seen if not all(map(math.isfinite, batch[1].values()))]
        what, texts = 'loss' if guilty else 'gradient', []
        for rank, losses, files in guilty or seen:
            runner.logger.error(f'batch of rank {rank} with a {what} that is not finite: {", ".join(files)}')
            values = ', '.join(f'{name}={value:.4g}' for name, value in losses.items())
            more = f' and {len(files) - SHOWN} more, see the log' if len(files) > SHOWN else ''
            texts.append(f'rank {rank}: {values} on {", ".join(files[:SHOWN])}{more}')
        return f'the {what} is not finite at iteration {update.iteration} (phase {phase_name(runner)}); ' + \
            '; '.join(texts)


class Flag:
    """A number on the device, zero or not, on its way to the host."""

    def __init__(self, on_device: Tensor) -> None:
        self.on_device = self.on_host = on_device
        if on_device.is_cuda:
            self.on_host = torch.empty((), pin_memory=True)
            self.on_host.copy_(on_device, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    @property
    def free(self) -> bool:
        """Whether reading waits for nothing."""
        return not self.on_device.is_cuda

    def read(self) -> bool:
        """Whether it is not zero; waits for the device to have come this far."""
        if self.on_device.is_cuda:
            self.arrived.synchronize()
        return bool(self.on_host)


@dataclass
class Update:
    """A step of the optimiser whose flag is to be read, and the batches in it: their losses and files."""
    iteration: int
    flag: Flag
    batches: list[tuple[dict[str, Tensor], list[str]]]


def check_weights(runner, state: dict[str, Tensor]) -> None:
    """Raises DivergenceError if a tensor of the state is not finite; of spread ones every rank looks at its part."""
    tensors = {name: local_shard(value) for name, value in state.items()
               if value.is_floating_point() and local_shard(value).numel()}
    flag = (~get_total_norm(tensors.values(), float('inf')).isfinite()).float() if tensors else torch.zeros(())
    if any(local_shard(value) is not value for value in state.values()):
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    if flag:
        wrong = [name for name, value in tensors.items() if not value.isfinite().all()] or ['of another rank']
        raise DivergenceError(f'{len(wrong)} weights, {wrong[0]} the first, are not finite after iteration '
                              f'{runner.iter} (phase {phase_name(runner)}); {advice(runner)}')


def advice(runner) -> str:
    """What is left of the run, and what may help."""
    last = checkpoints_of(runner.work_dir)
    kept = f'the last good checkpoint is {last[0]}' if last else 'there is no checkpoint yet'
    return (f'nothing of it was saved, {kept}. Lower the learning rate, look at the files, or leave out a few such '
            'steps with --skip-nonfinite N')


def batch_files(batch: dict, dataset) -> list[str]:
    """Where the images of a batch are from: files, or rows of a data set."""
    if samples := batch.get('data_samples'):
        return [sample.metainfo.get('img_path', f'sample {i}') for i, sample in enumerate(samples)]
    return [dataset.name(i) for i in batch['index'].tolist()] if 'index' in batch else []
