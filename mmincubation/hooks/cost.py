"""What a run costs: images, block-forwards and device-seconds, counted per phase."""
from __future__ import annotations

import copy
from time import perf_counter

from mmengine.dist import get_world_size

from mmincubation.registry import HOOKS
from mmincubation.resumable.loops import EpochLoop, IterLoop
from mmincubation.resumable.protocol import BaseHook, loop_protocol
from mmincubation.vit.sharding import unwrap


def phase_name(runner) -> str:
    """The phase that the train loop says it is in; 'train' for loops that have no phases, and while there is none."""
    return loop_protocol(runner).phase_name or 'train'


def waited(runner) -> float | None:
    """Seconds that this rank has waited for training batches so far; None for loaders that do not count them."""
    loop = loop_protocol(runner)
    return loop.dataloader.waited if isinstance(loop, EpochLoop | IterLoop) else None


@HOOKS.register_module()
class CostMeter(BaseHook):
    """Counts, over all ranks, what each phase costs; the counters travel in the checkpoints.

    `phases[name]` holds `iters`, `images`, `block_forwards` (images x the model's `block_forwards`, the number of
    transformer blocks that one training image runs through; None if the model has no such number) and `seconds`:
    training time of this rank, data loading included and validation not, times the number of ranks. `data_seconds`,
    a part of them: what this rank has waited for batches, times the number of ranks; not there where it is not known,
    in phases that began before it was counted and in loops whose loader does not count it.
    """

    # Before CheckpointHook (VERY_LOW): a checkpoint of an iteration must count that iteration. After RuntimeInfoHook,
    # which waits for the GPU where numbers are read.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self.phases: dict[str, dict] = {}
        self._clock, self._waited, self._epoch = perf_counter(), None, {}

    def before_train(self, runner) -> None:
        """Forget counters that came with weights (`load_from`) and not with a resumed run."""
        if runner.iter == 0:
            self.phases = {}
        self._start(runner)

    def before_train_epoch(self, runner) -> None:
        """Start the clocks: what lies between two epochs, such as a validation, is not training."""
        self._start(runner)
        self._epoch = {}

    def after_train_epoch(self, runner) -> None:
        """Say what share of this rank's epoch, or of a loop that has none, was waiting for data."""
        seconds, data = (self._epoch.get(key) for key in ('seconds', 'data_seconds'))
        if seconds and data is not None:
            runner.logger.info(f'{phase_name(runner)}: waited for data {data / seconds:.1%} of {seconds:.1f} s')

    def after_val(self, runner) -> None:
        """Start the clocks again where a loop validates between two iterations."""
        self._start(runner)

    def _start(self, runner) -> None:
        self._clock, self._waited = perf_counter(), waited(runner)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Count one iteration of `len(data_batch['inputs'])` images on every rank."""
        world = get_world_size()
        images = len(data_batch['inputs']) * world
        blocks = loop_protocol(runner).block_forwards or getattr(unwrap(runner.model), 'block_forwards', None)
        count = self.phases.setdefault(phase_name(runner), self._nothing())
        counted = blocks is not None and count['block_forwards'] is not None
        count['block_forwards'] = count['block_forwards'] + int(images * blocks) if counted else None
        count['iters'] += 1
        count['images'] += images
        before = self._clock, self._waited
        self._start(runner)
        self._add(count, 'seconds', self._clock - before[0], world)
        if before[1] is not None:
            self._add(count, 'data_seconds', self._waited - before[1], world)

    def _nothing(self) -> dict:
        known = {} if self._waited is None else dict(data_seconds=0.0)
        return dict(iters=0, images=0, block_forwards=0, seconds=0.0) | known

    def _add(self, count: dict, key: str, seconds: float, world: int) -> None:
        self._epoch[key] = self._epoch.get(key, 0.0) + seconds
        if key in count:
            count[key] += seconds * world

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the counters into the checkpoint as plain numbers."""
        checkpoint['cost_meter'] = copy.deepcopy(self.phases)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the counters from the checkpoint; one without them starts at nothing."""
        self.phases = copy.deepcopy(checkpoint.get('cost_meter', {}))
