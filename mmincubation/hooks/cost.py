"""Count what a run costs: images, block-forwards and device-seconds of each phase."""
from __future__ import annotations

import copy
from time import perf_counter

from mmengine.dist import get_world_size

from mmincubation.registry import HOOKS
from mmincubation.resumable.loops import EpochLoop, IterLoop
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import unwrap


def phase_name(runner) -> str:
    """Return the name of the phase that the train loop is in; 'train' for a loop without phases or between phases."""
    return loop_protocol(runner).phase_name or 'train'


def waited(runner) -> float | None:
    """Return the seconds that this rank has waited for training batches; None if the loader does not count them."""
    loop = loop_protocol(runner)
    return loop.dataloader.waited if isinstance(loop, EpochLoop | IterLoop) else None


@HOOKS.register_module()
class CostMeter(BaseHook):
    """Count what each phase costs, over all ranks; the counters travel in the checkpoints.

    `phases[name]` is a dict with these keys:

    - `iters` and `images`: iterations, and training images of all ranks.
    - `block_forwards`: images x the number of transformer blocks that one image passes (the model's `block_forwards`);
      None if the model has no such number.
    - `seconds`: this rank's training time x the number of ranks. Data loading counts, validation and the writing of
      checkpoints do not.
    - `data_seconds`: the share of `seconds` that this rank waited for batches, x the number of ranks. The key is
      missing if the loader does not count it, or did not when the phase began.
    """

    # Before CheckpointHook (VERY_LOW): a checkpoint of an iteration must count that iteration. After RuntimeInfoHook,
    # which waits for the GPU where numbers are read.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self.phases: dict[str, dict] = {}
        self._clock, self._waited, self._epoch = perf_counter(), None, {}
        self._saving = self._clock

    def before_train(self, runner) -> None:
        """Reset counters that came with weights (`load_from`) and not with a resumed run; start the clocks."""
        if runner.iter == 0:
            self.phases = {}
        self._start(runner)

    def before_train_epoch(self, runner) -> None:
        """Start the clocks: the time between two epochs, such as a validation, is not training."""
        self._start(runner)
        self._epoch = {}

    def after_train_epoch(self, runner) -> None:
        """Log the share of the epoch's time that this rank waited for data."""
        seconds, data = (self._epoch.get(key) for key in ('seconds', 'data_seconds'))
        if seconds and data is not None:
            runner.logger.info(f'{phase_name(runner)}: waited for data {data / seconds:.1%} of {seconds:.1f} s')

    def after_val(self, runner) -> None:
        """Start the clocks again, for loops that validate between two iterations."""
        self._start(runner)

    def settle(self, runner) -> None:
        """Note when a checkpoint begins to be written; hooks that wait for the device have done so before."""
        self._saving = perf_counter()

    def after_save_checkpoint(self, runner) -> None:
        """Leave out the time of writing: a loop that saves between two iterations goes on without a new start."""
        self._clock += perf_counter() - self._saving

    def _start(self, runner) -> None:
        self._clock, self._waited = perf_counter(), waited(runner)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Add one iteration of `len(data_batch['inputs'])` images on every rank to the counters."""
        world = get_world_size()
        images = len(data_batch['inputs']) * world
        # An incubation's phases run different numbers of blocks, which the loop knows.
        blocks = loop_protocol(runner).block_forwards or getattr(unwrap(runner.model), 'block_forwards', None)
        count = self.phases.setdefault(phase_name(runner), self._nothing())
        counted = blocks is not None and count['block_forwards'] is not None
        count['block_forwards'] = count['block_forwards'] + int(images * blocks) if counted else None
        count['iters'] += 1
        count['images'] += images
        # From the end of the last iteration to here: the wait for this batch lies in between.
        before = self._clock, self._waited
        self._start(runner)
        self._add(count, 'seconds', self._clock - before[0], world)
        if before[1] is not None:
            self._add(count, 'data_seconds', self._waited - before[1], world)

    def _nothing(self) -> dict:
        # A missing key means `not counted`, 0 would mean `no wait`.
        known = {} if self._waited is None else dict(data_seconds=0.0)
        return dict(iters=0, images=0, block_forwards=0, seconds=0.0) | known

    def _add(self, count: dict, key: str, seconds: float, world: int) -> None:
        self._epoch[key] = self._epoch.get(key, 0.0) + seconds
        # A phase that began without this counter goes on without it.
        if key in count:
            count[key] += seconds * world

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the counters into the checkpoint as plain numbers."""
        checkpoint['cost_meter'] = copy.deepcopy(self.phases)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the counters from the checkpoint; without them, start at zero."""
        self.phases = copy.deepcopy(checkpoint.get('cost_meter', {}))
