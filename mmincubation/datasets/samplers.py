"""Repeated augmentation: every image several times in a row of ranks, each time augmented anew."""
from collections.abc import Sized

from mmengine.dist import get_dist_info, sync_random_seed
from timm.data.distributed_sampler import RepeatAugSampler as TimmSampler

from mmincubation.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatAugSampler(TimmSampler):
    """DeiT's sampler, which is timm's, in a Runner.

    Each image of a shuffled order stands `num_repeats` times in a row; ranks take turns, so that its repeats go to
    different ranks, and stop after `floor(len // 256 * 256 / ranks)` samples: an epoch has the usual number of
    samples and a third of the images. The order is drawn from `seed` + epoch.
    """

    def __init__(self, dataset: Sized, num_repeats: int = 3, seed: int | None = None):
        rank, ranks = get_dist_info()
        super().__init__(dataset, num_replicas=ranks, rank=rank, num_repeats=num_repeats)
        self.seed = sync_random_seed() if seed is None else seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch's order."""
        super().set_epoch(self.seed + epoch)
