"""Draw what a model predicts for the images of a test."""
import os
from collections import Counter

import numpy as np
from mmengine.fileio import get
from mmengine.registry import VISUALIZERS
from mmengine.visualization import Visualizer
from PIL import Image

from mmincubation.datasets.files import image_names, path_below
from mmincubation.registry import HOOKS
from mmincubation.resumable.protocol import BaseHook

SIDE = 128  # pixels that a drawn image of a classifier has at least, so that its caption can be read
WRITTEN = ('.png', '.jpg', '.jpeg', '.bmp', '.webp')
STOCK = dict(mmdet='mmdet.DetLocalVisualizer', mmseg='mmseg.SegLocalVisualizer')


@HOOKS.register_module()
class TestPicturesHook(BaseHook):
    """Draw each test image with its prediction, beside its ground truth, for any task: tools/test.py --show-dir.

    A picture is `out_dir` and the image's path below the folder `images`. Objects below `score_thr` are left out. An
    image that cannot be drawn is a warning: the test goes on.
    """
    needs_one_rank = True  # read by config/hooks.py

    def __init__(self, out_dir: str, images: str, score_thr: float = 0.3):
        self.out_dir, self.images, self.score_thr, self.failed = out_dir, images, score_thr, 0
        self.visualizer: Visualizer | None = None
        self.rows: Counter[int] = Counter()

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: list) -> None:
        """Draw the images of one batch."""
        for i, output in enumerate(outputs):
            path = self._name_of_class_image(runner, data_batch, i) if isinstance(output, dict) else output.img_path
            target = os.path.join(self.out_dir, path_below(self.images, path))
            target += '' if target.lower().endswith(WRITTEN) else '.png'
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                if isinstance(output, dict):
                    classes = runner.test_dataloader.dataset.metainfo['classes']
                    pixels = classified(runner.visualizer, data_batch['inputs'][i], output, classes)
                    Image.fromarray(pixels).save(target)
                else:
                    self._draw(runner, path, output, target)
            except Exception as error:  # what a stock visualiser raises on unusual images and labels is anything
                self.failed += 1
                if self.failed == 1:
                    runner.logger.warning(f'--show-dir: {path} cannot be drawn ({type(error).__name__}: {error}); the '
                                          'test goes on, further ones are counted')

    def after_test_epoch(self, runner, metrics: dict | None = None) -> None:
        """Say where the pictures are."""
        missing = f'; {self.failed} could not be drawn' if self.failed else ''
        runner.logger.info(f'Pictures are in {self.out_dir}{missing}')

    def _name_of_class_image(self, runner, data_batch: dict, i: int) -> str:
        index = int(data_batch['index'][i])
        [name] = image_names(runner.test_dataloader.dataset, [index])
        if os.path.isfile(name):
            return name
        self.rows[index] += 1  # of several data sets each may have this row
        return os.path.join(self.images, f'row_{index}{f"_{self.rows[index]}" * (self.rows[index] > 1)}.png')

    def _draw(self, runner, path: str, output, target: str) -> None:
        """Draw a sample of mmdet or mmseg by the config's visualiser or, if that is of another kind, a stock one."""
        import mmcv
        package = type(output).__module__.partition('.')[0]
        if self.visualizer is None:
            own = any(cls.__module__.startswith(package) for cls in type(runner.visualizer).__mro__)
            self.visualizer = runner.visualizer if own else VISUALIZERS.get(STOCK[package])('show-dir')
            self.visualizer.dataset_meta = _with_tuples(runner.test_dataloader.dataset.metainfo)
        image = mmcv.imfrombytes(get(path), channel_order='rgb')
        truth = getattr(output, 'gt_sem_seg', None)  # which a pipeline may have resized with the image
        more = dict(pred_score_thr=self.score_thr) if package == 'mmdet' else {}
        self.visualizer.add_datasample('test', image, output, out_file=target, **more,
                                       draw_gt=truth is None or tuple(truth.shape[-2:]) == image.shape[:2])


def _with_tuples(meta: dict) -> dict:
    """Return a data set's metainfo with colours that mmdet's visualiser takes: it refuses lists."""
    palette = meta.get('palette')
    return dict(meta, palette=[tuple(colour) for colour in palette]) if isinstance(palette, list | tuple) else meta


def classified(visualizer: Visualizer, image, output: dict, classes: tuple[str, ...]) -> np.ndarray:
    """Return an image (3, H, W) with its predicted and its true class, green if they agree and red if not.

    The picture is RGB, (height, width, 3) uint8, enlarged by a whole factor if it is small.
    """
    scale = -(-SIDE // min(image.shape[1:]))
    pixels = np.kron(image.permute(1, 2, 0).cpu().numpy(), np.ones((scale, scale, 1), np.uint8))
    true, predicted = int(output['label']), int(output['scores'].argmax())
    visualizer.set_image(pixels)
    visualizer.draw_texts(
        f'{classes[predicted]} (true: {classes[true]})', np.array([4., 4.]), font_sizes=9,
        colors='lime' if true == predicted else 'red', bboxes=[dict(facecolor='black', alpha=0.6)])
    return visualizer.get_image()
