"""Anchors and RoIs stand on the levels that a pyramid makes of a ViT's patches, or are named with the right strides."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from bench.memory import real_batch
from mmincubation.check import memory
from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.config.strides import stride_problems
from tests.helpers.paths import ROOT

PYRAMID = dict(type='mmincubation.SimpleFeaturePyramid', in_channels=192)
DEMO = ROOT / 'configs/demo/maskrcnn_vit_demo_scratch.py'
STRIDES = [4, 8, 16, 32, 64]
ODD = [3.5, 7, 14, 28, 56]


def vit(patch: int = 16) -> dict:
    return dict(type='mmincubation.ViTBackbone', out_indices=(11, ),
                arch=dict(name='vit_tiny', patch_size=patch, img_size=16 * patch))


def anchors(strides) -> dict:
    return dict(anchor_generator=dict(strides=strides))


def rois(*strides) -> dict:
    return dict(bbox_roi_extractor=dict(featmap_strides=[*strides]))


def found(**model) -> list[str]:
    cfg = Config(dict(default_scope='mmdet', model=dict(dict(backbone=vit(), neck=PYRAMID), **model)))
    return list(stride_problems(cfg))


@pytest.mark.parametrize('model', [
    dict(rpn_head=anchors(STRIDES), roi_head=rois(4, 8, 16, 32)), dict(rpn_head=anchors(tuple(STRIDES))),
    dict(rpn_head=anchors([(side, side) for side in STRIDES])), dict(bbox_head=anchors([4., 8., 16., 32., 64.])),
    dict(bbox_head=dict(strides=STRIDES)), dict(bbox_head=[anchors(STRIDES), dict()]),
    dict(rpn_head=dict(stages=[anchors(STRIDES), dict()])), dict(roi_head=rois(4)),  # PointRend's masks: the first
    dict(roi_head=dict(bbox_roi_extractor=[rois(4, 8)['bbox_roi_extractor']])),
    dict(roi_head=dict(semantic_roi_extractor=dict(featmap_strides=[8]))),  # HTC's: one fused level
    dict(mask_head=dict(strides=[8, 8, 16, 32, 32])),  # SOLO resizes the levels itself
    dict(backbone=vit(8), neck=dict(PYRAMID, scales=(2, 1, .5), num_outs=4), rpn_head=anchors([4, 8, 16, 32])),
    dict(backbone=vit(14), rpn_head=anchors(ODD), roi_head=rois(*ODD[:4])),
    dict(neck=None, rpn_head=anchors([16])), dict(neck=dict(type='FPN', in_channels=[192], num_outs=2),
                                                  rpn_head=anchors([16, 32])),
    dict(neck=dict(type='mmseg.Feature2Pyramid', embed_dim=192), rpn_head=anchors([4, 8, 16, 32])),
    dict(neck=dict(type='YOLOXPAFPN'), rpn_head=anchors([1])), dict(neck=[PYRAMID], rpn_head=anchors([1])),
    dict(backbone=dict(type='ResNet'), neck=dict(type='FPN', in_channels=[1], num_outs=1), rpn_head=anchors([1])),
    dict(backbone=dict(vit(), arch='vit_tinny'), rpn_head=anchors([1])), dict(rpn_head=anchors([])), dict(),
    dict(neck=dict(PYRAMID, scales='fine'), rpn_head=anchors(['1'])), dict(neck=dict(PYRAMID, num_outs='5'))])
def test_right_or_unknown_strides_pass(model):
    assert found(**model) == []


PLACES = 'model.rpn_head.anchor_generator.strides', 'model.roi_head.bbox_roi_extractor.featmap_strides'


@pytest.mark.parametrize('model, said', [
    (dict(rpn_head=anchors(STRIDES), roi_head=rois(4, 8, 16, 32), backbone=vit(14)),
     f'{PLACES[0]} is {STRIDES}, but patches of 14 pixels make maps of strides [3.5, 7, 14, 28, 56]: give '
     f'{PLACES[0]}=[3.5, 7, 14, 28, 56], {PLACES[1]}=[3.5, 7, 14, 28]; or give model.backbone.arch patch_size=16, '
     'and the patch kernel is resized'),
    (dict(bbox_head=dict(strides=[8, 16, 32])), 'model.bbox_head.strides is [8, 16, 32], but patches of 16 pixels make '
     'maps of strides [4, 8, 16, 32, 64]: give model.bbox_head.strides=[4, 8, 16, 32, 64]'),
    (dict(rpn_head=anchors([(4, 8), *STRIDES[1:]])), f'{PLACES[0]} is [(4, 8), 8, 16, 32, 64], but patches of'),
    (dict(rpn_head=dict(stages=[anchors([1])])), 'model.rpn_head.stages.0.anchor_generator.strides is [1]'),
    (dict(roi_head=dict(mask_roi_extractor=[dict(featmap_strides=[8, 16])])),
     'model.roi_head.mask_roi_extractor.0.featmap_strides is [8, 16]'),
    (dict(neck=None, rpn_head=anchors([4])), 'strides is [4], but patches of 16 pixels make maps of strides [16]'),
    (dict(neck=dict(type='FPN', in_channels=[192] * 2, num_outs=3), rpn_head=anchors([4, 8, 16])), '[16, 16, 32]'),
    (dict(backbone=dict(type='mmincubation.TimmViT', name='vit_tiny_patch16_224', model_args=dict(patch_size=8)),
          rpn_head=anchors(STRIDES)), '[2, 4, 8, 16, 32]; or give model.backbone.model_args patch_size=16')])
def test_wrong_strides_are_named_with_the_right_ones(model, said):
    [line] = found(**model)
    assert said in line


@pytest.mark.parametrize('path', sorted([*(ROOT / 'configs/coco').glob('*.py'), DEMO]), ids=lambda path: path.stem)
def test_our_configs_fit_and_no_other_patch_does(path: Path):
    cfg = load_config(path)
    assert list(stride_problems(cfg)) == []
    cfg.model.backbone.arch = dict(name='vit_tiny', patch_size=28)
    [line] = stride_problems(cfg)
    assert line.count('strides=[') == 3


def test_a_run_is_refused():
    cfg = load_config(DEMO)
    cfg.model.backbone.arch, cfg.model.backbone.out_indices = 'vit_tiny_patch16_224', (11, )
    assert any(f'{PLACES[0]}=[8, 16, 32]' in line and 'patch_size=8' in line for line in problems(cfg, 'train'))


def test_mmdet_trains_with_fractions_as_strides():
    cfg = load_config(DEMO)
    model = cfg.model
    model.backbone.arch = dict(embed_dim=64, depth=24, num_heads=2, patch_size=7, img_size=28)
    strides = [3.5, 7, 14]
    model.rpn_head.anchor_generator.strides = strides
    model.roi_head.bbox_roi_extractor.featmap_strides = model.roi_head.mask_roi_extractor.featmap_strides = strides
    assert list(stride_problems(cfg)) == []
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        detector = MODELS.build(model)
        assert memory.total_loss(detector.train(), real_batch('mmdet', (64, 64), 2)).isfinite()
        data = real_batch('mmdet', (64, 64), 1)
        assert len(detector.eval().test_step(data)) == 1
        centres = detector.rpn_head.prior_generator.grid_priors([(4, 4)] * 3, device='cpu')[0].view(4, 4, 3, 4)
    assert centres[0, 1, 0].sub(centres[0, 0, 0]).tolist() == [3.5, 0, 3.5, 0]
