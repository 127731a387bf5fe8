"""What hooks may ask a training loop, and the points at which our Runner and loops call hooks beyond mmengine's."""
from fractions import Fraction
from pathlib import Path

from mmengine.hooks import Hook
from torch.distributed import ProcessGroup


class LoopProtocol:
    """What a hook may ask the training loop. The values here are those of a loop without phases."""
    phase_name: str | None = None  # the phase, or the network, that trains or validates now
    only_phase: str | None = None  # the phase that this run trains alone
    phase_iters_left: int | None = None
    block_forwards: Fraction | int | None = None  # blocks that an image passes in a step, on average over the ranks
    weights_dir: Path | None = None  # where phases leave weights for each other
    data_group: ProcessGroup | None = None  # the ranks that train the same network; None: all
    agreement_period: int = 1  # iterations between two looks at whether some rank was asked to stop
    resumes_within_epoch: bool = False

    def position(self, meta: dict) -> dict:
        """Return what `restore` needs of a checkpoint that goes on at the epoch and iteration of `meta`."""
        return {}

    def restore(self, checkpoint: dict) -> None:
        """Go to the position of a checkpoint, before the Runner restores its optimiser."""

    def gather(self, checkpoint: dict) -> None:
        """Bring to rank 0 what it is about to save and other ranks hold. Every rank calls it."""


def loop_protocol(runner) -> LoopProtocol:
    """Return the loop of a runner for questions, or the answers of a loop without phases if it is another kind."""
    loop = runner._train_loop
    return loop if isinstance(loop, LoopProtocol) else LoopProtocol()


class BaseHook(Hook):
    """mmengine's Hook, with the points that only our Runner and loops call. None of them does anything here."""

    def settle(self, runner) -> None:
        """Read what waits on the device: a checkpoint is about to be written."""

    def gather_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add to a checkpoint what other ranks hold. Called on every rank; `before_save_checkpoint` on rank 0 alone."""

    def after_phase(self, runner) -> None:
        """Act at the end of a phase of an incubation."""

    def add_to_result(self, runner, result: dict, folders: list[Path]) -> None:
        """Add entries to `result.json` before it is written; `folders` are the work dirs that it is about."""
