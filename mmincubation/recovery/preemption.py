"""Stop all ranks at the same step after a signal (see SIGNALS), with a checkpoint from which a command resumes."""
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop
from torch import distributed

from mmincubation.errors import Interrupted, Preempted, end_at_once, say_at_once
from mmincubation.hooks.runtime_info import wrappers_of
from mmincubation.resumable.protocol import loop_protocol

from .checkpoint_files import checkpoints_of
from .checkpoint_hook import CheckpointHook

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)  # the last: a terminal was closed
SAME = 1.  # seconds within which signals are one request: srun and slurmstepd both send it at a time limit
BOUNCE = 0.1  # the same for Ctrl-C on a process that nothing else has started
LAUNCHED = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
COMMAND = 'MMINCUBATION_COMMAND'  # what a user has typed, if a script has started the tool


class Request:
    """Record whether this process was asked to stop; `listening` installs it as the signal handler."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.at: float | None = None
        self.number: int | None = None
        self.building = True  # nothing has been trained or tested yet

    def receive(self, number: int, _frame) -> None:
        """Handle a signal: the first one asks for a stop, a later one ends the process at once, as by default.

        Signals within `SAME` seconds of the first are part of the same request, and so are all SIGHUPs: of one closed
        terminal kernel and shell both tell. Ctrl-C while data and model are built, where there is nothing to save, ends
        the process at once. A process that this one has forked, such as a worker of a metric's multiprocessing.Pool,
        leaves the others to this one; SIGTERM, by which a Pool ends it, ends it.
        """
        if os.getpid() != self.pid:
            if number == signal.SIGTERM:
                end_by_default(number)
            return
        if number == signal.SIGINT and self.building:
            end_at_once(number, _frame)
        if self.at is None:
            self.at, self.number = monotonic(), number
            if get_rank() == 0:
                say_at_once(f'{signal.Signals(number).name}: rank 0 stops after this step; another ends it at once')
        elif number != signal.SIGHUP and monotonic() - self.at > _together():
            end_by_default(number)


def end_by_default(number: int) -> None:
    """End this process as the signal does by default."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _together() -> float:
    return SAME if any(name in os.environ for name in LAUNCHED) else BOUNCE


@contextmanager
def listening() -> Iterator[Request]:
    """Treat Ctrl-C (SIGINT), SIGTERM, SIGUSR1 and SIGHUP as a request to stop while the context is open."""
    request = Request()
    # A script's `train.py &`, and nohup, ignore these.
    ignored = {number for number in (signal.SIGINT, signal.SIGHUP) if signal.getsignal(number) == signal.SIG_IGN}
    before = {number: signal.signal(number, request.receive) for number in {*SIGNALS} - ignored}
    try:
        yield request
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) == request.receive:  # a run that was stopped ignores them to its end
                signal.signal(number, handler)


class Agreement:
    """Tell all ranks at the same step that one of them was asked to stop, without a wait in that step.

    `tick` starts a sum over the ranks in the background, on the CPU (gloo, beside the group of the gradients). It
    returns the result of the sum that the previous `tick` started. Every rank must call it equally often.
    """

    def __init__(self, timeout: float) -> None:
        self.group = self.pending = None
        if get_world_size() > 1:
            self.group = distributed.new_group(backend='gloo', timeout=timedelta(seconds=timeout))

    def tick(self, asked: bool) -> bool:
        """Return whether any rank was asked before the previous call; a single rank returns its own `asked`."""
        if self.group is None:
            return asked
        last, flag = self.pending, torch.tensor([int(asked)])
        self.pending = flag, distributed.all_reduce(flag, group=self.group, async_op=True)
        if last is None:
            return False
        # The sum has had a step to arrive, so this hardly ever waits.
        last[1].wait()
        return bool(last[0])

    def minimum(self, number: int) -> int:
        """Return the smallest `number` of all ranks."""
        if self.group is not None:
            flag = torch.tensor([number])
            distributed.all_reduce(flag, distributed.ReduceOp.MIN, self.group)
            number = int(flag)
        return number

    def wait(self) -> None:
        """Wait until all ranks have called this."""
        if self.group is not None:
            distributed.barrier(self.group)


class PreemptionHook(Hook):
    """Stop a run that was asked to stop, by raising `Preempted`; the tools add this hook to every run.

    Training stops after an iteration. If the loop can resume within an epoch, the hook saves a checkpoint there;
    otherwise the resumed run repeats the iterations since the last checkpoint, identically. A validation stops after a
    batch; its metrics are dropped, and the resumed run validates again.
    """
    priority = 'LOWEST'  # after what belongs to the iteration, regular checkpoints among it

    def __init__(self, request: Request, timeout: float) -> None:
        self.request, self.timeout = request, timeout
        self.stopping, self.shared_batches = False, 0

    def before_run(self, runner) -> None:
        """Create the group of the ranks: the process group exists by now, the data do not."""
        self.agreement = Agreement(self.timeout)

    def before_train(self, runner) -> None:
        """Stop if a rank was asked while data and model were built."""
        self.request.building = False
        if self.agreement.minimum(int(self.request.at is None)) == 0:
            self._stop(runner, 'before the first iteration')

    def before_test(self, runner) -> None:
        """From now on Ctrl-C stops after a batch."""
        self.request.building = False

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop after this iteration if a rank was asked.

        At the end of an epoch, or while gradients are accumulated, the run stops a little later.
        """
        if (runner.iter + 1) % loop_protocol(runner).agreement_period == 0:
            self.stopping |= self.agreement.tick(self.request.at is not None)
        # The last iteration of an epoch is left to `after_train_epoch`, whose checkpoint is a regular one.
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        if self.stopping and at_rest(runner) and not (by_epoch and batch_idx + 1 == len(runner.train_dataloader)):
            if not by_epoch or loop_protocol(runner).resumes_within_epoch:
                save_now(runner, True)
            self._stop(runner, f'after iteration {runner.iter + 1}')

    def after_train_epoch(self, runner) -> None:
        """Stop after an epoch if the request came with its last iteration."""
        if self.stopping and not isinstance(runner.train_loop, IterBasedTrainLoop):
            save_now(runner, False)
            self._stop(runner, f'after epoch {runner.epoch + 1}')

    def before_val_epoch(self, runner) -> None:
        """Find the number of batches that all ranks have: each rank must tick equally often."""
        self.shared_batches = self.agreement.minimum(len(runner.val_dataloader))

    def before_test_epoch(self, runner) -> None:
        """Find the number of batches that all ranks have: each rank must tick equally often."""
        self.shared_batches = self.agreement.minimum(len(runner.test_dataloader))

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop within a validation if a rank was asked."""
        if batch_idx < self.shared_batches and self.agreement.tick(self.request.at is not None):
            self._stop(runner, f'in a validation after iteration {runner.iter}')

    def after_test_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Stop tools/test.py after this batch if a rank was asked."""
        if batch_idx < self.shared_batches and self.agreement.tick(self.request.at is not None):
            self._leave()
            raise self._kind(f'stopped after test batch {batch_idx + 1}; no metric was computed: run the command again')

    @property
    def _kind(self) -> type[Preempted]:
        return Interrupted if self.request.number == signal.SIGINT else Preempted

    def _stop(self, runner, where: str) -> None:
        self._leave()
        last = checkpoints_of(runner.work_dir)
        state = f'the checkpoint to go on from is {last[0]}' if last else 'there is no checkpoint yet'
        raise self._kind(f'stopped {where}; {state}. To go on, exactly: {resuming_command()}')

    def _leave(self) -> None:
        """Ignore more signals and wait for all ranks: a launcher signals the others as soon as one rank ends."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        self.agreement.wait()


def resuming_command() -> str:
    """Return the command line of this process, or of the script that started it, with `--resume`."""
    words, kept = shlex.split(os.environ.get(COMMAND, '')) or ['python', *sys.argv], []
    for before, word in zip(['', *words], words, strict=False):
        path = before == '--resume' and not word.startswith('-')  # of `--resume PATH`
        if not path and word.partition('=')[0] != '--resume':
            kept.append(word)
    return shlex.join([*kept, '--resume'])


def at_rest(runner) -> bool:
    """Return whether no accumulated gradients wait for an optimiser step."""
    wrapper = wrappers_of(runner.optim_wrapper)[0]  # several accumulate in step, so one tells for all
    count, of = getattr(wrapper, '_inner_count', 0), getattr(wrapper, '_accumulative_counts', 1)
    return count % of == 0 or count == wrapper._max_counts


def save_now(runner, within_epoch: bool) -> None:
    """Save a checkpoint of the present state, if the run has a CheckpointHook that saves at this point."""
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    if hook and (hook.by_epoch or within_epoch):
        hook.save_now(runner, within_epoch)
