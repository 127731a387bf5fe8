"""Repeated augmentation: every image is sampled several times, on different ranks, with different augmentations."""
from collections.abc import Sized

from mmengine.dist import get_dist_info, sync_random_seed
from timm.data.distributed_sampler import RepeatAugSampler as TimmSampler

from mmincubation.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class RepeatAugSampler(TimmSampler):
    """timm's form of DeiT's sampler, in a Runner.

    Each image of a shuffled order is repeated `num_repeats` times. Ranks take samples in turn, so the repeats go to
    different ranks. A rank stops after `floor(len // 256 * 256 / ranks)` samples: an epoch has the usual number of
    samples, and with 3 repeats a third of the images. The order is drawn from `seed` + epoch.
    """

    def __init__(self, dataset: Sized, num_repeats: int = 3, seed: int | None = None):
        rank, ranks = get_dist_info()
        super().__init__(dataset, num_replicas=ranks, rank=rank, num_repeats=num_repeats)
        self.seed = sync_random_seed() if seed is None else seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the order of this epoch."""
        super().set_epoch(self.seed + epoch)
