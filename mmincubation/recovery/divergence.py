"""Stop a run whose loss, gradients or weights are not finite, before anything of it is saved."""
from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from mmengine.dist import all_gather_object, get_rank, get_world_size
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from mmincubation.datasets.files import image_names
from mmincubation.errors import DivergenceError
from mmincubation.hooks.cost import phase_name
from mmincubation.hooks.ema import EMAHook as PhaseEMAHook
from mmincubation.hooks.runtime_info import read_next, wrappers_of
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import local_shard, unwrap

from .checkpoint_files import checkpoints_of

SHOWN = 4  # files of a batch that the error names; the log has all
SCALER_PATIENCE = 50  # steps; by 20, halved from 2^16 at each, a scale is below all that fp16 needs


class FiniteGuard(BaseHook):
    """Leave out a step, on all ranks, if a loss or gradient is not finite on some rank; then stop the run.

    With `skip` the run stops only after more than that many steps left out. The tools add this hook to every run.

    The check runs on the device, between backward and step. It sets a flag, reduced over the ranks, which fused
    optimisers obey on the device (`found_inf`). The host reads the flags of several steps together where it waits
    anyway: before a log line, the end of an epoch, a validation, a checkpoint. Until then a GPU goes on training
    without the steps left out.

    The host reads the flag after each step where that is free (CPU), where steps may be left out (`skip`: it counts
    them and restores buffers), and where an EMAHook must know. Optimisers that are not fused cannot obey a flag on the
    device, so the host reads it before their step.

    The loss scaler of an AmpOptimWrapper leaves steps out itself. It does so whenever its scale is too large, so they
    do not count as left out, and only more than `SCALER_PATIENCE` of them in a row stop the run.

    A step left out changes neither weights, optimiser, EMA nor buffers (batch statistics), but it counts as an
    iteration, so schedules go on. Weights are checked before each validation and in each checkpoint.
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
        self._scaled, self._in_a_row = False, 0
        self._emas: list[EMAHook] = []
        self._group = None

    def before_train(self, runner) -> None:
        """Record the losses of each forward pass; stop the EMA from averaging after a step left out."""
        unwrap(runner.model).register_forward_hook(self._see_losses, with_kwargs=True)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook):
                self._emas.append(hook)
                hook.after_train_iter = self._unless_left_out(hook.after_train_iter)

    def before_train_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        """Check the gradients of the current optimiser; each phase has its own optimiser."""
        self._group = loop_protocol(runner).data_group  # other groups' steps are their own
        if runner.optim_wrapper is not self._wrapper:
            self._wrapper, self._losses, self._scaled = runner.optim_wrapper, [], False
            for wrapper in wrappers_of(self._wrapper):
                if hasattr(wrapper, 'loss_scaler') and wrapper.loss_scaler.is_enabled():
                    self._scaled = True
                    self._watch_scaler(wrapper.loss_scaler, wrapper.optimizer)
                else:
                    wrapper.optimizer.register_step_pre_hook(self._before_step)
        # The forward pass changes buffers before the flag is known: keep copies to restore.
        if self.allowed and not self._buffers:
            self._buffers = [(b, b.clone()) for b in unwrap(runner.model).buffers()]
        self._flag = None

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Keep the losses and file names of the step for the error's text; read the flag if it is due."""
        losses = {name: torch.as_tensor(value).detach() for name, value in (outputs or {}).items() if 'loss' in name}
        self._since_update.append((losses, batch_files(data_batch, runner.train_dataloader.dataset)))
        phase = loop_protocol(runner).phase_name
        self.left_out, at_once = False, bool(self.allowed) or any(averages_in(hook, phase) for hook in self._emas)
        if self._flag is not None:
            self._unread.append(Update(runner.iter + 1, self._flag, self._since_update, self._scaled))
            self._losses, self._buffers, self._since_update = [], [], []
            at_once |= self._flag.free
        if at_once or read_next(runner, batch_idx):
            self.settle(runner)

    def settle(self, runner) -> None:
        """Read the flags of all steps since the last call, on every rank; count the steps left out.

        Raises:
            DivergenceError: more steps were left out than are allowed, or by a loss scaler in a row.
        """
        updates, self._unread = self._unread, []
        for update in updates:
            self.left_out = update.flag.read()
            if update.scaled:
                self._in_a_row = self._in_a_row + 1 if self.left_out else 0
                if self._in_a_row > SCALER_PATIENCE:
                    raise DivergenceError(
                        f'{self._report(runner, update)}; so it was in {self._in_a_row} steps in a row, whatever the '
                        f'loss scale; {advice(runner, "train in bfloat16 by --amp")}')
            elif self.left_out:
                self.skipped += 1
                text = self._report(runner, update)
                if self.skipped > self.allowed:
                    raise DivergenceError(f'{text}; {advice(runner)}')
                runner.logger.warning(f'{text}; the step is left out ({self.skipped} of {self.allowed} allowed)')

    def before_val_epoch(self, runner) -> None:
        """Stop the run before it validates weights that are not finite."""
        self.settle(runner)
        require_finite(runner, unwrap(runner.model).state_dict())

    def after_train_epoch(self, runner) -> None:
        """Stop the run, on every rank, before it saves weights that are not finite."""
        self.settle(runner)
        require_finite(runner, unwrap(runner.model).state_dict())

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Raise DivergenceError if the weights to save are not finite; save the number of steps left out."""
        require_finite(runner, checkpoint['state_dict'])
        checkpoint['finite_guard'] = dict(skipped=self.skipped)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the number of steps left out; weights of another run (`load_from`) bring none."""
        if runner._resume:
            self.skipped = checkpoint.get('finite_guard', dict(skipped=0))['skipped']

    def add_to_result(self, runner, result: dict, folders: list) -> None:
        """Add the number of steps left out to the result, if the run allowed any."""
        if self.allowed:
            result['skipped_steps'] = self.skipped

    def _see_losses(self, model: nn.Module, args: tuple, kwargs: dict, output) -> None:
        if kwargs.get('mode') == 'loss' and isinstance(output, dict):
            for name, value in output.items():
                if 'loss' in name:  # what mmengine adds up
                    values = value if isinstance(value, list | tuple) else [value]
                    self._losses += [v.detach().float().sum() for v in values]

    def _before_step(self, optimizer, args, kwargs) -> None:
        """Set the flag between backward and step; with a fused optimiser there is no host sync."""
        # The largest magnitude is not finite if any gradient is: one number instead of a mask for each tensor.
        grads = [local_shard(p.grad) for group in optimizer.param_groups for p in group['params'] if p.grad is not None]
        if not grads:
            return
        flag = self._set_flag(get_total_norm([grad for grad in grads if grad.numel()], float('inf')).float())
        if getattr(optimizer, '_step_supports_amp_scaling', False):
            optimizer.found_inf = flag
        elif flag:
            optimizer.zero_grad(set_to_none=True)

    def _watch_scaler(self, scaler, optimizer) -> None:
        """Set the flag from what a GradScaler has found, before the update that forgets it."""
        update = scaler.update

        def watched(*args, **kwargs) -> None:
            found = list(scaler._found_inf_per_device(optimizer).values())
            self._set_flag(torch.where(torch.stack(found).sum() > 0, torch.inf, 0.))
            update(*args, **kwargs)

        scaler.update = watched

    def _set_flag(self, value: Tensor) -> Tensor:
        """Return the flag: 1 if the value or a loss of this update is not finite, on some rank; restore buffers."""
        values = torch.stack([value, *(loss.to(value.device) for loss in self._losses)])
        flag = (~values.isfinite()).any().float()
        # All ranks must leave out the same step, else their weights differ from then on.
        if get_world_size() > 1:
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
        for buffer, before in self._buffers:
            buffer.copy_(torch.where(flag > 0, before, buffer))
        # Several optimisers may step in one iteration; any of their flags counts.
        self._flag = Flag(flag if self._flag is None else torch.maximum(self._flag.on_device, flag))
        return flag

    def _unless_left_out(self, method):

        def call(*args, **kwargs):
            if not self.left_out:
                method(*args, **kwargs)

        return call

    def _report(self, runner, update: Update) -> str:
        """Return what was not finite, on which rank, with which files; log every file."""
        here = [(get_rank(), {name: value.item() for name, value in losses.items()}, files)
                for losses, files in update.batches]
        seen = [batch for rank in all_gather_object(here, self._group) for batch in rank]
        # If all losses are finite, a gradient is not, and no batch can be singled out.
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
    """Hold a number on the device that is copied to the host in the background; zero means finite."""

    def __init__(self, on_device: Tensor) -> None:
        self.on_device = self.on_host = on_device
        if on_device.is_cuda:
            self.on_host = torch.empty((), pin_memory=True)
            self.on_host.copy_(on_device, non_blocking=True)
            self.arrived = torch.cuda.Event()
            self.arrived.record()

    @property
    def free(self) -> bool:
        """Whether reading the flag needs no host sync."""
        return not self.on_device.is_cuda

    def read(self) -> bool:
        """Wait until the copy has arrived; return whether the number is not zero."""
        if self.on_device.is_cuda:
            self.arrived.synchronize()
        return bool(self.on_host)


@dataclass
class Update:
    """Hold an optimiser step whose flag is unread, with the losses and file names of its batches."""
    iteration: int
    flag: Flag
    batches: list[tuple[dict[str, Tensor], list[str]]]
    scaled: bool  # by a loss scaler, which leaves steps out itself


def require_finite(runner, state: dict[str, Tensor]) -> None:
    """Raise DivergenceError if a tensor of `state` is not finite; each rank checks its own shards.

    Every rank must call it if tensors are sharded.
    """
    floats = {name: local_shard(value) for name, value in state.items() if value.is_floating_point()}
    tensors = {name: value for name, value in floats.items() if value.numel()}
    # One norm over all tensors first: to look at each by name is slow, and needed only after a failure.
    flag = (~get_total_norm(tensors.values(), float('inf')).isfinite()).float() if tensors else torch.zeros(())
    if any(local_shard(value) is not value for value in state.values()):
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
    if flag:
        wrong = [name for name, value in tensors.items() if not value.isfinite().all()] or ['of another rank']
        raise DivergenceError(f'{len(wrong)} weights, {wrong[0]} the first, are not finite after iteration '
                              f'{runner.iter} (phase {phase_name(runner)}); {advice(runner)}')


def averages_in(hook: EMAHook, phase: str | None) -> bool:
    """Return whether a hook, ours or mmengine's, averages weights in a phase."""
    return hook.averages_in(phase) if isinstance(hook, PhaseEMAHook) else True


def advice(runner, last_resort: str = 'leave out a few such steps with --skip-nonfinite N') -> str:
    """Return text that names the last good checkpoint and says what may help."""
    last = checkpoints_of(runner.work_dir)
    kept = f'the last good checkpoint is {last[0]}' if last else 'there is no checkpoint yet'
    return f'nothing of it was saved, {kept}. Lower the learning rate, look at the files, or {last_resort}'


def batch_files(batch: dict, dataset) -> list[str]:
    """Return the name of each image of a batch: its file, or its row in the data set."""
    if samples := batch.get('data_samples'):
        return [sample.metainfo.get('img_path', f'sample {i}') for i, sample in enumerate(samples)]
    return image_names(dataset, batch['index'].tolist()) if 'index' in batch else []
