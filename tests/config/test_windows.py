"""How a segmentor predicts, scores and pads is refused before the run where it would fail in it."""
import pytest

from mmincubation.config.windows import window_problems
from tests.config.test_labels import config

SLIDE = dict(mode='slide', crop_size=(32, 32), stride=(20, 20))
CROP = dict(model__data_preprocessor__size=(64, 64), train_dataloader__dataset__pipeline=[
    dict(type='RandomCrop', crop_size=(64, 128))])


def found(mode: str = 'train', **changes) -> list[str]:
    return [*window_problems(config(model__type='EncoderDecoder', **changes), mode)]


def test_right_ones_have_no_problem():
    for given in (SLIDE, dict(mode='whole'), {}, dict(SLIDE, stride=(32, 32))):
        assert not found(model__test_cfg=given)
    assert not found(**CROP | dict(model__data_preprocessor__size=(64, 128)))
    assert not found(val_evaluator__iou_metrics=['mIoU', 'mDice', 'mFscore'])
    assert not found('test', **CROP)


@pytest.mark.parametrize('given, expected', [
    (dict(mode='slid'), "model.test_cfg.mode='slid': give 'whole' or 'slide'"),
    (dict(mode='slide'), "model.test_cfg: mode='slide' needs crop_size and stride, as (height, width)"),
    (dict(SLIDE, stride=None), "model.test_cfg: mode='slide' needs stride, as"),
    (dict(SLIDE, stride=20), 'model.test_cfg.stride=20: give (height, width)'),
    (dict(SLIDE, stride=(0, 20)), 'model.test_cfg.stride=(0, 20): give (height, width)'),
    (dict(SLIDE, stride=(20, 48)), 'model.test_cfg: stride=(20, 48) is larger than crop_size=(32, 32), ')])
def test_windows_that_cannot_slide(given, expected):
    for mode in ('train', 'test'):
        [line] = found(mode, model__test_cfg=given)
        assert line.startswith(expected)


def test_unknown_scores_and_large_crops():
    assert found(val_evaluator__iou_metrics=['mIoU', 'mF1']) == [
        "val_evaluator.iou_metrics has 'mF1': IoUMetric knows mIoU, mDice, mFscore"]
    assert found(**CROP) == ['train_dataloader.dataset.pipeline.0.crop_size is (64, 128), larger than '
                             'model.data_preprocessor.size=(64, 64): make them equal']
