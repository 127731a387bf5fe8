"""Draw classified images."""
import numpy as np
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.visualization import Visualizer

from mmincubation.registry import HOOKS

SIDE = 128  # pixels that a drawn image has at least, so that its caption can be read


@HOOKS.register_module()
class ClsVisualizationHook(Hook):
    """Write each test image with its true and its predicted class to the visualiser's backends, if `draw` is set."""

    def __init__(self, draw: bool = False):
        self.draw = draw

    def after_test_iter(self, runner, batch_idx: int, data_batch: dict, outputs: list[dict]) -> None:
        """Draw the images of one batch; a correct prediction is green, a wrong one red."""
        if not self.draw:
            return
        classes = runner.test_dataloader.dataset.metainfo['classes']
        visualizer = Visualizer.get_current_instance()
        first = (batch_idx * get_world_size() + get_rank()) * runner.test_dataloader.batch_size
        for i, (image, output) in enumerate(zip(data_batch['inputs'], outputs, strict=True)):
            scale = -(-SIDE // min(image.shape[1:]))
            pixels = np.kron(image.permute(1, 2, 0).cpu().numpy(), np.ones((scale, scale, 1), np.uint8))
            true, predicted = int(output['label']), int(output['scores'].argmax())
            visualizer.set_image(pixels)
            visualizer.draw_texts(
                f'{classes[predicted]} (true: {classes[true]})', np.array([4., 4.]), font_sizes=9,
                colors='lime' if true == predicted else 'red', bboxes=[dict(facecolor='black', alpha=0.6)])
            visualizer.add_image('test', visualizer.get_image(), step=first + i)
