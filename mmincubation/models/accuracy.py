"""The accuracy of a classifier."""
import torch
from mmengine.evaluator import BaseMetric

from mmincubation.errors import ConfigError
from mmincubation.registry import METRICS


@METRICS.register_module()
class Accuracy(BaseMetric):
    """The percentage of images whose label is among the k highest scores, as `accuracy/top<k>`, for each k of `topk`.

    On several ranks every image counts once, also if the sampler repeats images to fill its last round: `BaseMetric`
    sorts the results of all ranks into the data set's order and cuts them at its length.

    Raises:
        ConfigError: a k is no whole number from 1 on.
    """
    default_prefix = 'accuracy'

    def __init__(self, topk: int | tuple[int, ...] = (1, ), collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device)
        self.topk = (topk, ) if isinstance(topk, int) else tuple(topk)
        if not self.topk or not all(type(k) is int and k > 0 for k in self.topk):
            raise ConfigError(f'Accuracy: topk={topk!r}: give whole numbers from 1 on, such as (1, 5)')

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        """Keep the rank of each image's label among its scores; equal scores rank above it.

        An image with a score that is not finite is right for no k.
        """
        scores = torch.stack([sample['scores'] for sample in data_samples])
        labels = torch.stack([sample['label'] for sample in data_samples])
        ranks = (scores >= scores.gather(1, labels[:, None])).sum(1) - 1
        finite = scores.isfinite().all(1)
        never = torch.iinfo(ranks.dtype).max  # a k may be above the number of classes
        self.results += torch.where(finite, ranks, never).tolist()  # one transfer for the batch

    def compute_metrics(self, results: list[int]) -> dict:
        """Return the percentages from the ranks of all images."""
        ranks = torch.tensor(results)
        return {f'top{k}': 100 * (ranks < k).double().mean().item() for k in self.topk}
