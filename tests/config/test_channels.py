"""Necks and heads have the width of the ViT's maps, or are named by their keys."""
import pytest
from mmengine.config import Config

from mmincubation.config.channels import channel_problems

VIT = dict(type='mmincubation.ViTBackbone', arch='vit_tiny')
TIMM = dict(type='mmincubation.TimmViT', name='vit_tiny_patch16_224')
PYRAMID = dict(type='mmincubation.SimpleFeaturePyramid', in_channels=192)


def found(**model) -> list[str]:
    return list(channel_problems(Config(dict(model=dict(dict(backbone=VIT), **model)))))


@pytest.mark.parametrize('model', [
    dict(neck=PYRAMID, decode_head=dict(in_channels=256)),  # what comes out of this neck has its own width
    dict(neck=dict(type='Feature2Pyramid', embed_dim=192), decode_head=dict(in_channels=[192] * 4)),
    dict(neck=dict(type='MultiLevelNeck', in_channels=[1]), decode_head=dict(in_channels=1)),
    dict(decode_head=dict(in_channels=192)), dict(neck=None, auxiliary_head=[dict(in_channels=192), dict()]),
    dict(backbone=dict(type='ResNet'), neck=dict(PYRAMID, in_channels=1)),
    dict(backbone=dict(VIT, arch='vit_tinny'), neck=dict(PYRAMID, in_channels=1)),
    dict(backbone=TIMM, neck=PYRAMID), dict(backbone=dict(TIMM, name='vit_tinny'), neck=dict(PYRAMID, in_channels=1)),
    dict(backbone=dict(TIMM, name='resnet18'), neck=dict(PYRAMID, in_channels=1))])
def test_right_or_unknown_widths_pass(model):
    assert found(**model) == []


@pytest.mark.parametrize('model, expected', [
    (dict(backbone=TIMM, neck=dict(PYRAMID, in_channels=768)), 'model.neck.in_channels is 768'),
    (dict(backbone=dict(TIMM, name='vit_base_patch14_reg4_dinov2', model_args=dict(embed_dim=192)),
          decode_head=dict(in_channels=768)), 'model.decode_head.in_channels is 768'),
    (dict(neck=dict(PYRAMID, in_channels=768)), 'model.neck.in_channels is 768'),
    (dict(neck=dict(type='Feature2Pyramid', embed_dim=192), decode_head=dict(in_channels=[192, 768])),
     'model.decode_head.in_channels is [192, 768]'),
    (dict(auxiliary_head=[dict(in_channels=192), dict(in_channels=384)]), 'model.auxiliary_head.1.in_channels is 384')])
def test_wrong_widths_are_named(model, expected):
    assert found(**model) == [f'{expected}, the maps of model.backbone have 192 channels: make them equal']
