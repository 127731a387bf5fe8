"""Write what a segmentor predicts as pictures of labels."""
import os

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from PIL import Image

from mmincubation.datasets.files import path_below
from mmincubation.registry import METRICS


@METRICS.register_module()
class LabelPictures(BaseMetric):
    """Write one picture of labels per image, as test servers take them, and score nothing.

    A picture is `output_dir`, the image's path below the folder `images`, and `.png`. Labels are class numbers, one
    higher if the data set has `reduce_zero_label`, as in mmseg; more than 256 need 16 bits. mmseg's IoUMetric drops
    sides of one pixel, and the folders of images.
    """
    default_prefix = 'labels'

    def __init__(self, output_dir: str, images: str, collect_device: str = 'cpu'):
        super().__init__(collect_device)
        self.output_dir, self.images = output_dir, images

    def process(self, data_batch: dict, data_samples: list[dict]) -> None:
        """Write the pictures of a batch."""
        for sample in data_samples:
            labels = sample['pred_sem_seg']['data'].cpu().numpy()
            labels = labels.reshape(labels.shape[-2:]) + bool(sample.get('reduce_zero_label'))
            name = os.path.splitext(path_below(self.images, sample['img_path']))[0]
            path = os.path.join(self.output_dir, f'{name}.png')
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Image.fromarray(labels.astype(np.uint8 if labels.max() < 256 else np.uint16)).save(path)

    def evaluate(self, size: int) -> dict:
        """Say where the pictures are; return no metrics."""
        print_log(f'Label pictures are in {self.output_dir}', logger='current')
        return {}

    def compute_metrics(self, results: list) -> dict:
        """Return no metrics."""
        return {}
