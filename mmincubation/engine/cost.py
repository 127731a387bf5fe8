"""What a run costs: images, block-forwards and device-seconds, counted per phase."""
from __future__ import annotations

import copy
from time import perf_counter

from mmengine.dist import get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from torch import nn

from mmincubation.registry import HOOKS


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside any number of data-parallel wrappers."""
    while is_model_wrapper(model):
        model = model.module
    return model


def phase_name(runner) -> str:
    """The phase that the train loop says it is in; 'train' for loops that have no phases, and while there is none."""
    return getattr(runner._train_loop, 'phase_name', 'train')


@HOOKS.register_module()
class CostMeter(Hook):
    """Counts, over all ranks, what each phase costs; the counters travel in the checkpoints.

    `phases[name]` holds `iters`, `images`, `block_forwards` (images x the model's `block_forwards`, the number of
    transformer blocks that one training image runs through; None if the model has no such number) and `seconds`:
    training time of this rank, data loading included and validation not, times the number of ranks.
    """

    # Before CheckpointHook (VERY_LOW): a checkpoint of an iteration must count that iteration. After RuntimeInfoHook,
    # which reads the loss and so waits for the GPU.
    priority = 'NORMAL'

    def __init__(self) -> None:
        self.phases: dict[str, dict] = {}
        self._clock = perf_counter()

    def before_train(self, runner) -> None:
        """Forget counters that came with weights (`load_from`) and not with a resumed run."""
        if runner.iter == 0:
            self.phases = {}
        self._clock = perf_counter()

    def before_train_epoch(self, runner) -> None:
        """Start the clock: what lies between two epochs, such as a validation, is not training."""
        self._clock = perf_counter()

    def after_val(self, runner) -> None:
        """Start the clock again where a loop validates between two iterations."""
        self._clock = perf_counter()

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Count one iteration of `len(data_batch['inputs'])` images on every rank."""
        world = get_world_size()
        images = len(data_batch['inputs']) * world
        blocks = getattr(unwrap(runner.model), 'block_forwards', None)
        count = self.phases.setdefault(phase_name(runner), dict(iters=0, images=0, block_forwards=0, seconds=0.0))
        counted = blocks is not None and count['block_forwards'] is not None
        count['block_forwards'] = count['block_forwards'] + images * int(blocks) if counted else None
        count['iters'] += 1
        count['images'] += images
        now = perf_counter()
        count['seconds'] += (now - self._clock) * world
        self._clock = now

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the counters into the checkpoint as plain numbers."""
        checkpoint['cost_meter'] = copy.deepcopy(self.phases)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Take the counters from the checkpoint; one without them starts at nothing."""
        self.phases = copy.deepcopy(checkpoint.get('cost_meter', {}))
