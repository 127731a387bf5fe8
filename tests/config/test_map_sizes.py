"""Images of a segmentor whose sides its patches and levels do not divide are refused, or warned of if unknown."""
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, DefaultScope

from mmincubation.config.load import load_config
from mmincubation.config.map_sizes import fit_warnings
from mmincubation.config.maps import window_warnings
from mmincubation.config.windows import window_problems
from tests.config.test_labels import config
from tests.helpers.paths import ROOT

HEAD = dict(type='FCNHead', in_index=3, num_classes=2)
NECK = dict(type='Feature2Pyramid', embed_dim=64, rescales=[2, 1, .5, .25])
FINE = dict(type='mmincubation.ViTBackbone', arch=dict(embed_dim=64, depth=4, num_heads=2, patch_size=8, img_size=32),
            out_indices=(0, 1, 2, 3))
TIMM = dict(type='mmincubation.TimmViT', name='vit_small_patch14_reg4_dinov2', out_indices=(11, ))
NO_NECK = dict(neck=None, decode_head=dict(HEAD, in_index=0), auxiliary_head=None)
PAD = 'model.data_preprocessor'


def segmentor(pre=(), test=(), pipeline=(), size=(64, 64), **model) -> Config:
    """A segmentor on patches of 8 and levels down to 32; `pipeline` is that of validation and test."""
    cfg = config(model__type='EncoderDecoder')
    pre = dict(type='SegDataPreProcessor', size=size, **dict(pre))
    model = dict(dict(backbone=FINE, neck=NECK, decode_head=HEAD, auxiliary_head=[dict(HEAD, in_index=0)],
                      data_preprocessor=pre, test_cfg=dict(test)), **model)
    cfg.model.update({key: None for key in model})
    cfg.model.update({key: ConfigDict(value) if isinstance(value, dict) else value for key, value in model.items()})
    for kind in ('val', 'test'):
        cfg[f'{kind}_dataloader'].dataset.pipeline = [dict(type=kind, **step) for kind, step in pipeline]
    return cfg


def found(mode: str = 'train', **changes) -> list[str]:
    return [*window_problems(segmentor(**changes), mode)]


KEEP = [('LoadImageFromFile', {}), ('Resize', dict(scale=(96, 96), keep_ratio=True)), ('LoadAnnotations', {})]
WINDOWS = dict(mode='slide', crop_size=(64, 96), stride=(32, 32))


def fixed(*scale) -> list:
    return [('Resize', dict(scale=scale)), ('PackSegInputs', {})]


@pytest.mark.parametrize('changes', [
    {}, dict(pipeline=KEEP), dict(pre=dict(test_cfg=dict(size_divisor=64)), pipeline=KEEP), dict(test=WINDOWS),
    dict(pre=dict(test_cfg=dict(size_divisor=32)), pipeline=fixed(100, 100)), dict(pipeline=fixed(128, 96)),
    dict(pre=dict(test_cfg=dict(size_divisor=8)), pipeline=fixed(128, 96)),  # it pads nothing
    dict(pre=dict(test_cfg=dict(size=(96, 96)))), dict(pipeline=[('ResizeToMultiple', dict(size_divisor=16))]),
    dict(size=(72, 80), decode_head=dict(HEAD, in_index=1), auxiliary_head=None),  # no head reads coarse levels
    dict(size=(72, 80), **NO_NECK), dict(size=(70, 84), backbone=TIMM, **NO_NECK),
    dict(size=(70, 70), neck=dict(type='ResNetNeck')), dict(size=(70, 70), backbone=dict(type='ResNet')),
    dict(size=(70, 70), backbone=dict(FINE, arch='vit_tinny'))])
def test_right_or_unknown_sizes_pass(changes):
    for mode in ('train', 'test'):
        assert not found(mode, **changes)


@pytest.mark.parametrize('changes, said', [
    (dict(size=(72, 96)), f'{PAD}.size=(72, 96): give multiples of 32, such as (96, 96); '),
    (dict(size=None, pre=dict(size_divisor=16)), f'{PAD}.size_divisor=16: give 32, or a multiple of it; '),
    (dict(test=dict(WINDOWS, crop_size=(64, 72))), 'model.test_cfg.crop_size=(64, 72): give multiples of 32, such as'),
    (dict(pre=dict(test_cfg=dict(size_divisor=16)), pipeline=KEEP), f'{PAD}.test_cfg.size_divisor=16: give 32, or'),
    (dict(pre=dict(test_cfg=dict(size=(90, 96)))), f'{PAD}.test_cfg.size=(90, 96): give multiples of 32, such as'),
    (dict(pipeline=fixed(240, 180)), 'val_dataloader.dataset.pipeline makes images of 180 x 240, no multiples of 32:'),
    (dict(size=(68, 80), **NO_NECK), f'{PAD}.size=(68, 80): give multiples of 8, such as (72, 80); '),
    (dict(size=(512, 512), backbone=TIMM, **NO_NECK), 'multiples of 14, such as (518, 518); '),
    (dict(neck=dict(type='MultiLevelNeck', in_channels=[64], out_channels=64), size=(72, 72),
          decode_head=dict(HEAD, in_index=0)), 'give multiples of 16, such as (80, 80); ')])
def test_sizes_that_do_not_fit_are_named(changes, said):
    [line] = found(**changes)
    assert said in line and 'predictions are shifted' in line


def test_a_test_has_its_own_data_and_no_crops():
    assert found('test', size=(72, 72)) == []
    [line] = found('test', pipeline=fixed(240, 180))
    assert line.startswith('test_dataloader') and line.endswith(f'give {PAD}.test_cfg=dict(size_divisor=32)')


@pytest.mark.parametrize('changes, warned', [
    (dict(pipeline=KEEP), True), (dict(pipeline=[]), True), (dict(pipeline=[*fixed(64, 64), ('Mine', {})]), True),
    (dict(pipeline=KEEP, pre=dict(test_cfg=dict(size_divisor=32))), False), (dict(pipeline=fixed(64, 64)), False),
    (dict(pipeline=[('ResizeToMultiple', {})]), False), (dict(pipeline=KEEP, test=WINDOWS), False),
    (dict(pipeline=KEEP, backbone=dict(type='ResNet')), False)])
def test_whole_images_of_any_size_are_a_warning(changes, warned):
    lines = [*fit_warnings(segmentor(**changes))]
    assert len(lines) == warned and all(line.endswith('test_cfg=dict(size_divisor=32)') for line in lines)


def test_the_reason_maps_of_other_sizes_than_the_image():
    """Maps of 180 rows cover 184 of the first level and 160 of the last; of 192 rows all cover 192."""
    for rows, covered in ((180, [184, 184, 176, 160]), (192, [192] * 4)):
        with torch.no_grad(), DefaultScope.overwrite_default_scope('mmseg'):
            backbone, neck = MODELS.build(FINE), MODELS.build(dict(NECK, norm_cfg=dict(type='BN')))
            maps = neck(backbone(torch.zeros(1, 3, rows, 32)))
        assert [one.shape[2] * stride for one, stride in zip(maps, (4, 8, 16, 32), strict=True)] == covered


@pytest.mark.parametrize('path', ['ade20k/upernet_vit_h_e2e', 'ade20k/linear_vit_b_e2e', 'demo/upernet_vit_demo_e2e'])
def test_our_configs_fit(path):
    cfg = load_config(ROOT / f'configs/{path}.py')
    assert not [*window_problems(cfg, 'train'), *window_problems(cfg, 'test'), *window_warnings(cfg)]


@pytest.mark.parametrize('taps, windows, wide, warned', [
    ((23, ), 14, (2, 5, 8, 11), True), ((11, ), 14, (5, 11, 17, 23), False), ((11, ), 14, (2, 5, 8, 11), False),
    ((11, ), 0, (), False), ((11, ), 14, (), True)])
def test_global_blocks_of_another_depth(taps, windows, wide, warned):
    node = dict(type='mmincubation.ViTBackbone', out_indices=taps, window_size=windows, global_blocks=wide)
    lines = [*window_warnings(Config(dict(model=dict(backbone=node))))]
    assert len(lines) == warned and all(f'end with {taps[-1]}' in line for line in lines)
