"""Mask AP of a model without masks is refused before the run; of one with masks it is not."""
import pytest
from mmengine.config import Config

from mmincubation.config.mask_metrics import mask_metric_problems


def found(model: dict, metric, mode: str = 'train', **more) -> list[str]:
    node = dict(type='CocoMetric', metric=metric, **more)
    cfg = Config(dict(default_scope='mmdet', model=model, val_cfg={}, val_evaluator=[node], test_evaluator=node))
    return [*mask_metric_problems(cfg, mode)]


BOXES = dict(type='RetinaNet', bbox_head=dict(type='RetinaHead'))


@pytest.mark.parametrize('mode, place', [('train', 'val_evaluator.0'), ('test', 'test_evaluator')])
def test_a_box_detector(mode, place):
    for metric in ('segm', ['bbox', 'segm']):
        assert found(BOXES, metric, mode) == [
            f"{place}.metric has 'segm', and no part of the model makes masks (no key names a mask): give "
            "metric='bbox'"]
    assert not found(BOXES, 'bbox', mode) and not found(BOXES, ['bbox'], mode)
    assert not found(BOXES, 'segm', mode, format_only=True)


@pytest.mark.parametrize('model', [
    dict(type='MaskRCNN', roi_head=dict(mask_head=dict(type='FCNMaskHead'))), dict(type='X', panoptic_head={}),
    dict(type='SOLOv2'), dict(type='CondInst')])
def test_models_that_make_masks(model):
    assert not found(model, 'segm')
