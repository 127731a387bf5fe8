"""What the host of a GPU waits for, counted on the CPU: operations that ask for a value, or for how many there are."""
from collections import Counter
from traceback import extract_stack

import torch
from mmengine.hooks import Hook
from torch.utils._python_dispatch import TorchDispatchMode

from mmincubation.benchmark.host_syncs import kind_of_sync

aten = torch.ops.aten
READS = {aten._local_scalar_dense, aten.is_nonzero, aten.equal, aten.nonzero, aten.masked_select, aten._unique2,
         aten.unique_dim, aten.unique_consecutive}


class Waits(TorchDispatchMode):
    """Where in the code they are, and how often, by the iteration of a runner.

    A mask as an index is one, too. Not seen: numbers that leave a CPU tensor without an operation (numpy, tolist),
    and what C++ does within an operation.
    """

    def __init__(self):
        super().__init__()
        self.iteration, self.places = -1, {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.overloadpacket in READS or kind_of_sync(func, args) == 'mask':
            frame = next((f for f in reversed(extract_stack()[:-1]) if '/torch/' not in f.filename), None)
            place = frame and f'{"/".join(frame.filename.split("/")[-4:])}:{frame.lineno} {func}'
            self.places.setdefault(self.iteration, Counter())[place] += 1
        return func(*args, **(kwargs or {}))


class Follow(Hook):
    """Tells a `Waits` where an iteration begins; what comes before it (the last one's hooks) belongs to the last."""
    priority = 'HIGHEST'

    def __init__(self, waits: Waits):
        self.waits = waits

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.waits.iteration = runner.iter

    def after_train_epoch(self, runner):
        self.waits.iteration = -1


def waits_of(runner) -> Waits:
    """What a runner's training has waited for."""
    waits = Waits()
    runner.register_hook(Follow(waits))
    with waits:
        runner.train()
    return waits
