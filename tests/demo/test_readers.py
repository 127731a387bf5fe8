"""Stock datasets read the demo data: torchvision's ImageFolder, mmdet's CocoDataset, mmseg's BaseSegDataset."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_utils
from torchvision.datasets import ImageFolder

from mmincubation.demo.data import CLASSES, SEG_CLASSES, write_demo_data


@pytest.fixture(scope='module')
def demo(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'demo'
    assert write_demo_data(root, seed=3, cls_train=40, cls_val=10, scenes_train=24, scenes_val=12)
    return root


def test_image_folder_reads_classification(demo):
    data = ImageFolder(demo / 'cls/train')
    assert data.classes == list(CLASSES) and len(data) == 40
    image, label = data[0]
    assert image.size == (32, 32) and image.mode == 'RGB' and label == 0


def test_stock_coco_dataset_reads_scenes(demo):
    from mmdet.datasets import CocoDataset

    annotations = json.loads((demo / 'scenes/annotations/instances_train.json').read_text())['annotations']
    data = CocoDataset(
        ann_file='annotations/instances_train.json',
        data_root=str(demo / 'scenes'),
        data_prefix={'img': 'train/img/'},
        metainfo={'classes': CLASSES},
        pipeline=[
            {'type': 'LoadImageFromFile'},
            {'type': 'mmdet.LoadAnnotations', 'with_bbox': True, 'with_mask': True},
        ],
    )
    assert len(data) == 24
    for index in range(len(data)):
        sample = data[index]
        own = [a for a in annotations if a['image_id'] == sample['img_id']]
        assert sample['gt_bboxes_labels'].tolist() == [a['category_id'] - 1 for a in own]
        for mask, record in zip(sample['gt_masks'].masks, own, strict=True):
            np.testing.assert_array_equal(mask, mask_utils.decode(record['segmentation']))
        assert not sample['gt_ignore_flags'].any()


def test_stock_segmentation_dataset_reads_scenes(demo):
    from mmseg.datasets import BaseSegDataset

    data = BaseSegDataset(
        data_root=str(demo / 'scenes'),
        data_prefix={'img_path': 'val/img', 'seg_map_path': 'val/seg'},
        img_suffix='.png',
        seg_map_suffix='.png',
        metainfo={'classes': SEG_CLASSES},
        reduce_zero_label=True,
        pipeline=[{'type': 'LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations'}],
    )
    assert len(data) == 12
    for index in range(len(data)):
        sample = data[index]
        seg = cv2.imread(str(demo / 'scenes/val/seg' / Path(sample['img_path']).name), cv2.IMREAD_UNCHANGED)
        expected = np.where(seg == 0, 255, seg.astype(int) - 1)
        np.testing.assert_array_equal(sample['gt_seg_map'], expected)
        assert set(np.unique(expected)) <= {*range(11), 255}
