"""A test leaves its results image by image, beside the training's and never over them."""
import logging
from types import SimpleNamespace

import pytest

from mmincubation.hooks.per_image import PerImageHook


@pytest.mark.parametrize('before, name', [([], 'per_image.json.gz'), (['result.json'], 'per_image_test.json.gz')])
def test_the_file_of_a_test(before, name, tmp_path, caplog):
    for file in before:
        (tmp_path / file).touch()
    content = dict(task='segmentation', classes=['a'], images=['x.png'], areas=[[[0, 1, 2, 3]]])
    runner = SimpleNamespace(work_dir=str(tmp_path), logger=logging.getLogger('hook'), test_evaluator=SimpleNamespace(
        metrics=[SimpleNamespace(evidence=None), SimpleNamespace(evidence=lambda: content)]))
    with caplog.at_level(logging.INFO):
        PerImageHook().after_test_epoch(runner, {})
    assert {path.name for path in tmp_path.iterdir()} == {*before, name} and name in caplog.text


def test_a_test_that_measures_nothing_leaves_nothing(tmp_path):
    PerImageHook().after_test_epoch(SimpleNamespace(work_dir=str(tmp_path), test_evaluator=SimpleNamespace(
        metrics=[object()])))
    assert not list(tmp_path.iterdir())
