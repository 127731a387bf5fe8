"""A detector that detects nothing yet has an AP of 0, in our metric and in mmdet's, and nothing asks in vain for it."""
import json

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric
from pycocotools.coco import COCO

from mmincubation.compat import coco_api
from mmincubation.compat.coco_api import mend_coco
from mmincubation.downstream.coco_metric import fast_coco_metric

NOTHING = dict(img_id=1, bboxes=np.zeros((0, 4)), scores=np.zeros(0), labels=np.zeros(0, int), masks=[],
               mask_scores=np.zeros(0))


@pytest.fixture
def truth(tmp_path):
    one = dict(id=1, image_id=1, category_id=1, bbox=[2, 3, 20, 20], area=400, iscrowd=0,
               segmentation=[[2, 3, 22, 3, 22, 23, 2, 23]])
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(dict(images=[dict(id=1, file_name='a.png', width=64, height=64)], annotations=[one],
                                    categories=[dict(id=1, name='cat')])))
    return path


@pytest.mark.parametrize('kind', [fast_coco_metric, CocoMetric], ids=['ours', 'stock'])
def test_nothing_detected_is_zero(truth, capfd, monkeypatch, kind):
    notes = []
    monkeypatch.setattr(coco_api, 'print_log', lambda text, **_: notes.append(text))
    mend_coco()
    metric = kind(ann_file=str(truth), metric=['bbox', 'segm', 'proposal'], classwise=True)
    metric.dataset_meta = dict(classes=('cat', ))
    found = metric.compute_metrics([(dict(img_id=1), NOTHING)])
    keys = ('bbox_mAP', 'bbox_mAP_50', 'bbox_mAP_s', 'segm_mAP', 'AR@100')
    assert {found[key] for key in keys} == {0}
    assert found['bbox_mAP_l'] == -1  # no large object
    assert notes == ['nothing is detected yet in any image'] * 3
    assert 'loading annotations' not in ''.join(capfd.readouterr())


def test_what_is_detected_is_loaded_as_ever(truth):
    coco = COCO(str(truth))
    mend_coco()
    results = coco.loadRes([dict(image_id=1, category_id=1, bbox=[2, 3, 20, 20], score=0.5)])
    assert results.anns[1]['area'] == 400
    with pytest.raises(AssertionError):
        coco.loadRes([dict(image_id=2, category_id=1, bbox=[2, 3, 20, 20], score=0.5)])  # another image
