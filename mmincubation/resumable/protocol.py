"""The attributes of a training loop that hooks read, and the hook methods that only our Runner and loops call."""
from fractions import Fraction
from pathlib import Path

from mmengine.hooks import Hook
from torch.distributed import ProcessGroup


class LoopProtocol:
    """The attributes of a training loop that hooks read, with the values of a loop without phases."""
    phase_name: str | None = None  # the phase, or the network, that trains or validates now
    only_phase: str | None = None  # the phase that this run trains alone
    phase_iters_left: int | None = None
    block_forwards: Fraction | int | None = None  # blocks that an image passes in a step, on average over the ranks
    weights_dir: Path | None = None  # where phases leave weights for each other
    data_group: ProcessGroup | None = None  # the ranks that train the same network; None: all
    agreement_period: int = 1  # iterations between two checks whether a rank was asked to stop
    resumes_within_epoch: bool = False

    def position(self, meta: dict) -> dict:
        """Return what `restore` needs of a checkpoint that continues at the epoch and iteration of `meta`."""
        return {}

    def restore(self, checkpoint: dict) -> None:
        """Go to the position of a checkpoint, before the Runner restores its optimiser."""

    def gather(self, checkpoint: dict) -> None:
        """Send to rank 0 what it will save and only other ranks have. Every rank calls it."""


def loop_protocol(runner) -> LoopProtocol:
    """Return the training loop of a runner, or the values of a loop without phases if it has another base class."""
    loop = runner._train_loop
    return loop if isinstance(loop, LoopProtocol) else LoopProtocol()


class BaseHook(Hook):
    """mmengine's Hook with the methods that only our Runner and loops call. Here they do nothing."""

    def settle(self, runner) -> None:
        """Read values that are still on the device, before a checkpoint is written."""

    def gather_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add to a checkpoint what only other ranks have. Every rank calls it, unlike `before_save_checkpoint`."""

    def after_save_checkpoint(self, runner) -> None:
        """Act when a checkpoint is written. Every rank calls it."""

    def after_phase(self, runner) -> None:
        """Act at the end of a phase of an incubation."""

    def add_to_result(self, runner, result: dict, folders: list[Path]) -> None:
        """Set keys of `result.Result` before it is written, or add numbers to its `metrics`.

        `folders` are the work dirs that the result covers.
        """
