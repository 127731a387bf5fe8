"""Write the results of a test image by image, for tools/compare.py."""
from pathlib import Path

from mmincubation.downstream.evidence import write_per_image
from mmincubation.resumable.protocol import BaseHook


class PerImageHook(BaseHook):
    """Write `per_image.json.gz` into the work dir after a test of a detector or a segmentor.

    Where a training has left its result.json, the file beside it is the training's, so the test's is
    `per_image_test.json.gz`.
    """

    def after_test_epoch(self, runner, metrics: dict[str, float] | None = None) -> None:
        """Write the file on the main rank, if the test measured something."""
        folder = Path(runner.work_dir)
        path = folder / f'per_image{"_test" * (folder / "result.json").exists()}.json.gz'
        if write_per_image(runner.test_evaluator, path):
            runner.logger.info(f'Results image by image written to {path}; tools/compare.py compares two such files')
