"""A dataloader that can start at any batch. Its random draws do not depend on the worker."""
from collections.abc import Iterator
from copy import copy
from itertools import chain, count

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_dist_info
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from mmincubation.errors import ConfigError

from .draws import seeded
from .timed_loader import TimedLoader


class SeededDataset(Dataset):
    """A data set indexed by (index, *draw), whose random draws for that sample depend on (seed, *draw) alone.

    They depend neither on the worker nor on what it has loaded before. A plain index draws as in `dataset`, and so does
    a data set whose `draws` is False: seeding costs more than to fetch a small image. All other attributes are those of
    `dataset`.
    """

    def __init__(self, dataset: Dataset, seed: int):
        self.dataset, self.seed = dataset, seed

    def __getattr__(self, name: str):
        if name.startswith('__') or name == 'dataset':  # a copy in a worker has no `dataset` while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    @property
    def pipeline(self):
        """The wrapped data set's pipeline; mmdet's PipelineSwitchHook sets it."""
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
        if not getattr(self.dataset, 'draws', True):
            return self.dataset[index]
        with seeded(self.seed, *draw):
            return self.dataset[index]


class PositionedBatches(Sampler):
    """Batches of (index, epoch, place) for a `SeededDataset`, which can start at any batch of an epoch.

    `place` counts the samples of an epoch over all ranks, so an image that is sampled twice gets two augmentations.
    Batches before the position are sampled, because samplers draw in order, but not loaded. `endless` batches continue
    with the next epoch, for loops that count iterations. `emulated_ranks` are the ranks whose batches are concatenated
    to one; by default only this process's rank.
    """

    def __init__(self, batches: BatchSampler, endless: bool = False):
        self.batches, self.endless, self.epoch, self.begin = batches, endless, 0, 0
        self.emulated_ranks = [get_dist_info()[0]]

    @property
    def sampler(self) -> Sampler:
        """The sampler of the indices."""
        return self.batches.sampler

    def seek(self, epoch: int, begin: int = 0) -> None:
        """Start the next iteration over the batches at batch `begin` of an epoch."""
        self.epoch, self.begin = epoch, begin

    def __len__(self) -> int:
        """Return the number of batches of a whole epoch, at any position."""
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
            if empty:
                raise ConfigError(no_batch(len(self.sampler), self.batches.batch_size))

    def _of_rank(self, rank: int, epoch: int) -> Iterator[list[tuple]]:
        own, ranks = get_dist_info()
        place, batches = rank, self.batches
        if self.emulated_ranks != [own]:  # copies, because each emulated rank needs a sampler with its number
            batches = copy(batches)
            batches.sampler = copy(self.sampler)
            batches.sampler.rank = rank
        if hasattr(batches.sampler, 'set_epoch'):
            batches.sampler.set_epoch(epoch)
        for batch in batches:
            yield [(index, epoch, place + i * ranks) for i, index in enumerate(batch)]
            place += len(batch) * ranks  # ranks take samples in turn, so a rank's places are `ranks` apart


def no_batch(images: int, size: int) -> str:
    """Return in words that an epoch of `images` on a rank has no batch of `size`."""
    return (f'train_dataloader: {images} images (a rank) make no whole batch of {size}; '
            'give a smaller batch_size, or drop_last=False')


def odd_batch(images: int, size: int, drop_last: bool) -> str | None:
    """Return in words which batch of an epoch of `images` on a rank has no pairs for mixup; None if all have."""
    counts = [size] * (images >= size) + [images % size] * (not drop_last)
    odd = next((count for count in counts if count % 2), None)
    return odd and (f'train_dataloader: mixup pairs the images of a batch, and {images:,} images (a rank) in batches '
                    f'of {size} leave one of {odd}, which are odd: give an even batch_size and drop_last=True')


def resumable_loader(loader: DataLoader, seed: int, endless: bool = False, pairs: bool = False) -> DataLoader:
    """Return a loader with the settings of `loader`, a `SeededDataset` and `PositionedBatches`; load nothing yet.

    `pairs` says that the model mixes pairs of images, so that each batch needs an even number.

    Raises:
        ConfigError: `loader` has no batch sampler with a sampler, or an epoch has no batch, or one that is odd.
    """
    if not hasattr(loader.batch_sampler, 'sampler'):
        raise ConfigError('train_dataloader has no batch sampler with a sampler: such data cannot be resumed exactly')
    batches = loader.batch_sampler
    if not len(batches):
        raise ConfigError(no_batch(len(batches.sampler), batches.batch_size))
    whole = batches.drop_last or isinstance(batches.sampler, InfiniteSampler)
    if pairs and (odd := odd_batch(len(batches.sampler), batches.batch_size, whole)):
        raise ConfigError(odd)
    same = ('num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context',
            'generator', 'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'in_order')
    return TimedLoader(
        SeededDataset(loader.dataset, seed), batch_sampler=PositionedBatches(loader.batch_sampler, endless),
        **{name: getattr(loader, name) for name in same})
