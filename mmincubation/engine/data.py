"""Classification data in the layout of ImageNet, and its metric."""
import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import TRANSFORMS
from torchvision import datasets
from torchvision.transforms import v2

from mmincubation.registry import DATASETS, METRICS

from .config_check import ConfigError


@DATASETS.register_module()
class ImageFolder(datasets.ImageFolder):
    """Images in one folder per class; a sample is `inputs` (3, H, W) uint8 and `labels`, the class number.

    `pipeline` names torchvision transforms, e.g. `dict(type='torchvision.transforms.v2.RandomCrop', size=32)`.
    """

    def __init__(self, root: str, pipeline: list[dict] = ()):
        transforms = [TRANSFORMS.build(t) for t in pipeline]
        try:
            super().__init__(root, v2.Compose([*transforms, v2.PILToTensor()]))
        except FileNotFoundError as error:
            raise ConfigError(f'{root} holds no images in folders of classes: {error}') from error

    @property
    def metainfo(self) -> dict:
        """Class names, for visualisers and checkpoints."""
        return dict(classes=tuple(self.classes))

    def __getitem__(self, index: int) -> dict:
        image, label = super().__getitem__(index)
        return dict(inputs=image, labels=label)


@METRICS.register_module()
class Accuracy(BaseMetric):
    """Percent of images whose label is among the k highest scores, as `accuracy/top<k>`."""
    default_prefix = 'accuracy'

    def __init__(self, topk: tuple[int, ...] = (1, ), collect_device: str = 'cpu'):
        super().__init__(collect_device=collect_device)
        self.topk = topk

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        """Keep, per image, the rank of the true label among the scores; ties and non-finite scores count against it."""
        for sample in data_samples:
            scores, label = sample['scores'], sample['label']
            rank = int((scores >= scores[label]).sum()) - 1
            self.results.append(rank if scores.isfinite().all() else len(scores))

    def compute_metrics(self, results: list[int]) -> dict:
        """Ranks of all images to percentages."""
        ranks = torch.tensor(results)
        return {f'top{k}': 100 * (ranks < k).double().mean().item() for k in self.topk}
