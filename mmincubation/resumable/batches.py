"""A dataloader that can start at any batch, and whose samples draw the same in any worker."""
from collections.abc import Iterator
from copy import copy
from itertools import chain, count

from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from .draws import seeded
from .timed_loader import TimedLoader


class SeededDataset(Dataset):
    """Any data set, asked for (index, *draw): what it draws then are the draws of (seed, *draw).

    In whichever worker, persistent or not, and whatever that has loaded before. All else is asked of `dataset`.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __getattr__(self, name: str):
        if name.startswith('__') or name == 'dataset':  # a copy in a worker asks before it has any
            raise AttributeError(name)
        return getattr(self.dataset, name)

    @property
    def pipeline(self):
        """The wrapped data set's, also to be replaced there, as mmdet's PipelineSwitchHook does."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline) -> None:
        self.dataset.pipeline = pipeline

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: 'tuple[int, ...] | int'):
        if not isinstance(key, tuple):
            return self.dataset[key]
        index, *draw = key
        with seeded(self.seed, *draw):
            return self.dataset[index]


class PositionedBatches(Sampler):
    """The batches of `batches` from a position on; each index as (index, epoch, place), for a `SeededDataset`.

    The place counts the samples of an epoch over all ranks, so that an image which is sampled twice is augmented
    twice. What lies before the position is sampled, as its order is needed, and never loaded. `endless` batches go on
    with the next epoch, for loops that count iterations. A batch holds those of all `emulated_ranks`, one after
    another: this process's own rank, unless something else is set.
    """

    def __init__(self, batches: BatchSampler, endless: bool = False):
        self.batches, self.endless, self.epoch, self.begin = batches, endless, 0, 0
        self.emulated_ranks = [get_dist_info()[0]]

    @property
    def sampler(self) -> Sampler:
        """What gives the indices."""
        return self.batches.sampler

    def seek(self, epoch: int, begin: int = 0) -> None:
        """Start the next iteration at batch `begin` of an epoch; endless batches count on from there."""
        self.epoch, self.begin = epoch, begin

    def __len__(self) -> int:
        """Batches of a whole epoch, wherever the position is."""
        return len(self.batches)

    def __iter__(self) -> Iterator[list[tuple]]:
        skip = self.begin
        for epoch in count(self.epoch) if self.endless else [self.epoch]:
            empty = True
            for batches in zip(*(self._of_rank(rank, epoch) for rank in self.emulated_ranks), strict=True):
                empty = False
                if skip:
                    skip -= 1
                else:
                    yield list(chain.from_iterable(batches))
            if empty and self.endless:
                raise ValueError('the training set has not one batch: give a smaller train_dataloader.batch_size')

    def _of_rank(self, rank: int, epoch: int) -> Iterator[list[tuple]]:
        own, ranks = get_dist_info()
        place, batches = rank, self.batches
        if self.emulated_ranks != [own]:
            batches = copy(batches)
            batches.sampler = copy(self.sampler)
            batches.sampler.rank = rank
        if hasattr(batches.sampler, 'set_epoch'):
            batches.sampler.set_epoch(epoch)
        for batch in batches:
            yield [(index, epoch, place + i * ranks) for i, index in enumerate(batch)]
            place += len(batch) * ranks


def resumable_loader(loader: DataLoader, seed: int, endless: bool = False) -> DataLoader:
    """The same loader with a `SeededDataset` and `PositionedBatches`; nothing is loaded yet.

    Raises:
        ValueError: `loader` has no batches that could be counted.
    """
    if not hasattr(loader.batch_sampler, 'sampler'):
        raise ValueError('train_dataloader has no batch sampler with a sampler: such data cannot be resumed exactly')
    same = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context',
            'generator', 'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'in_order')
    return TimedLoader(
        SeededDataset(loader.dataset, seed), batch_sampler=PositionedBatches(loader.batch_sampler, endless),
        **{name: getattr(loader, name) for name in same})
