"""Mistakes that a segmentation run would meet late are one line before it begins; and they are mistakes."""
import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmincubation.checkpoints import write_tensors
from mmincubation.config.problems import problems
from mmincubation.config.runtime import (
    endless_problems,
    norm_problems,
    pixel_warnings,
    runtime_problems,
    zero_label_problems,
)
from mmincubation.engine import launch
from mmincubation.engine.options import apply_options
from tests.helpers.paths import ROOT
from tests.helpers.shrink import shrink
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.toy import arguments, e2e_config, write_images

LEAVES = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)


def released(**changes) -> Config:
    """As the tools prepare it for eight GPUs."""
    cfg = Config.fromfile(ROOT / 'configs/ade20k/upernet_vit_b_incub.py')
    cfg.merge_from_dict(dict(launcher='pytorch') | changes)
    return cfg


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
@pytest.mark.parametrize('launcher', ['none', 'pytorch'])
def test_no_config_here_has_a_problem_on_gpus(path, launcher):
    cfg = Config.fromfile(path)
    cfg.launcher = launcher
    assert [*norm_problems(cfg, gpu=True), *zero_label_problems(cfg)] == []


def test_syncbn_between_cpu_ranks():
    (line, ) = norm_problems(released(), gpu=False)
    assert line.startswith('model.neck.norm_cfg: SyncBN needs GPUs')
    options = line.partition('--cfg-options ')[2].split()
    cfg = released(**dict(option.split('=') for option in options))  # the remedy works
    assert len(options) == 3 and not list(norm_problems(cfg, gpu=False))
    assert not list(norm_problems(released(launcher='none'), gpu=False))  # the Runner makes it BN


def test_syncbn_as_a_class_default_counts():
    cfg = released()
    del cfg.model.neck.norm_cfg
    assert 'model.neck.norm_cfg.type=BN' in next(norm_problems(cfg, gpu=False))


def test_torch_refuses_syncbn_between_cpu_ranks(tmp_path):
    torch.distributed.init_process_group('gloo', f'file://{tmp_path}/group', rank=0, world_size=1)
    try:
        norm = torch.nn.SyncBatchNorm(2)
        norm.eval()(torch.randn(2, 2, 3, 3))  # so testing on CPU ranks is possible
        with pytest.raises(ValueError, match='GPU'):
            norm.train()(torch.randn(2, 2, 3, 3))
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('changes, alone', [
    (dict(), True), ({f'model.{p}.norm_cfg.type': 'BN' for p in ('neck', 'decode_head', 'auxiliary_head')}, False)])
def test_one_image_per_process(changes, alone):
    """SyncBN without ranks is BN."""
    cfg = released(**changes, launcher='none' if alone else 'pytorch', **{'train_dataloader.batch_size': 1})
    (line, ) = norm_problems(cfg, gpu=True)
    assert line.startswith('model.decode_head.pool_scales: scale 1') and 'batch_size=2' in line
    cfg.train_dataloader.batch_size = 2
    assert not list(norm_problems(cfg, gpu=True))


@pytest.mark.parametrize('changes', [
    dict(), {'launcher': 'none', 'model.decode_head.pool_scales': (2, 3, 6)},
    {'launcher': 'none', 'model.decode_head.norm_cfg': dict(type='GN', num_groups=32)}])
def test_one_image_per_process_is_enough_for_others(changes):
    assert not list(norm_problems(released(**changes, **{'train_dataloader.batch_size': 1}), gpu=True))


def test_upernet_cannot_train_on_one_image(tmp_path):
    cfg = shrink(released(), tmp_path)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(cfg.model).train()
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        model(torch.randn(1, 3, 64, 64))
    assert model(torch.randn(2, 3, 64, 64)).shape[:2] == (2, 150)


@pytest.mark.parametrize('key', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
def test_label_0_must_mean_the_same_twice(key):
    """mmseg's ADE20KDataset says True by default, BaseSegDataset False."""
    cfg = released(**{f'{key}.dataset.reduce_zero_label': False})
    lines = list(zero_label_problems(cfg))
    assert f'{key}.dataset.pipeline.' in lines[0] and f'{key}.dataset (ADE20KDataset) has False' in lines[0]
    assert len(lines) == (2 if key == 'test_dataloader' else 1)  # the pipeline of --tta too
    cfg = released(**{f'{key}.dataset.type': 'BaseSegDataset'})
    assert len(list(zero_label_problems(cfg))) == len(lines)


def test_a_loader_without_an_opinion_takes_the_datasets():
    cfg = released(**{'train_dataloader.dataset.reduce_zero_label': False})
    del cfg.train_dataloader.dataset.pipeline[1].reduce_zero_label
    assert not list(zero_label_problems(cfg))


def test_mmseg_asserts_it_when_an_image_is_read(tmp_path):
    from mmseg.registry import DATASETS
    cfg = released(**{'val_dataloader.dataset.reduce_zero_label': False})
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = DATASETS.build(dict(cfg.val_dataloader.dataset, data_root=str(write_ade(tmp_path))))
    with pytest.raises(AssertionError, match='reduce_zero_label'):
        data[0]


def test_all_mistakes_come_at_once_and_from_the_tools(tmp_path, capsys):
    write_ade(tmp_path / 'ade/ADEChallengeData2016')
    cfg = shrink(released(), tmp_path)
    cfg.train_dataloader.batch_size = 1
    cfg.val_dataloader.dataset.reduce_zero_label = False
    assert len(list(runtime_problems(cfg, 'train', gpu=False))) == 2
    cfg.dump(tmp_path / 'wrong.py')
    assert launch.train(arguments(tmp_path / 'wrong.py', work_dir=str(tmp_path / 'work'))) == 2
    assert 'pool_scales' in capsys.readouterr().err and not (tmp_path / 'work').exists()


EPOCHS, ITERS = dict(type='EpochBasedTrainLoop', max_epochs=2), dict(type='IterBasedTrainLoop', max_iters=2)


@pytest.mark.parametrize('loop, mode, key, ends', [
    (EPOCHS, 'train', 'train', False), (dict(by_epoch=True, max_epochs=2), 'train', 'train', False),
    (dict(type='mmincubation.EpochLoop', max_epochs=2), 'train', 'train', False),
    (dict(type='mmincubation.IncubationLoop', phases={}), 'train', 'train', False),
    (ITERS, 'train', 'train', True), (dict(type='mmincubation.IterLoop', max_iters=2), 'train', 'train', True),
    (dict(by_epoch=False, max_iters=2), 'train', 'train', True),
    (ITERS, 'train', 'val', False), (EPOCHS, 'train', 'val', False), (EPOCHS, 'train', 'test', True),
    (ITERS, 'test', 'test', False), (ITERS, 'test', 'train', True)])
@pytest.mark.parametrize('sampler', ['InfiniteSampler', 'mmengine.InfiniteSampler', 'mmdet.GroupMultiSourceSampler'])
def test_an_endless_sampler_where_data_must_end(loop, mode, key, ends, sampler):
    finite = dict(sampler=dict(type='DefaultSampler', shuffle=True))
    cfg = Config(dict(default_scope='mmdet', train_cfg=loop, **{f'{kind}_dataloader': finite for kind in (
        'train', 'val', 'test')}))
    assert not list(endless_problems(cfg, mode))
    cfg[f'{key}_dataloader'] = dict(sampler=dict(type=sampler))
    said = list(endless_problems(cfg, mode))
    assert [line.startswith(f'{key}_dataloader.sampler.type={sampler}: it never ends') for line in said] == \
        [True] * (not ends)


@pytest.mark.parametrize('kind', ['timm.data', 'mmincubation'])
@pytest.mark.parametrize('settings, said', [
    (dict(re_prob=.25, re_mode='pixel'), "re_prob=0.25 has no effect without normalisation, which is the model's: give "
     "model.data_preprocessor.erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=0.25, "
     "mode='pixel', max_count=1)"),
    (dict(re_prob=.25, normalize=True, use_prefetcher=True), 're_prob=0.25 has no effect'),
    (dict(std=(.5, .5, .5)), 'std=(0.5, 0.5, 0.5) has no effect'),
    (dict(mean=(.5, .5, .5)), 'mean=(0.5, 0.5, 0.5) has no effect'), (dict(re_prob=0.), None),
    (dict(re_prob=.25, is_training=False), None), (dict(re_prob=.25, normalize=True), None),
    (dict(mean=(.485, .456, .406), std=(.229, .224, .225)), None)])  # as the model's own
def test_settings_of_timm_without_effect(kind, settings, said, tmp_path):
    own = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
    cfg = e2e_config(tmp_path, tmp_path, **{'model.data_preprocessor': own})
    step = dict(dict(type=f'{kind}.create_transform', input_size=8, is_training=True, normalize=False), **settings)
    cfg.train_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline = [step]
    found = [line for line in runtime_problems(cfg, 'train', gpu=False) if 'has no effect' in line]
    assert len(found) == 2 * bool(said) and not list(runtime_problems(cfg, 'test', gpu=False))
    assert all(f'_dataloader.dataset.pipeline.0: {said}' in line for line in found)


def test_amp_optim_wrapper_on_a_cpu_and_its_remedy(tmp_path):
    write_images(tmp_path / 'images')
    for amp in (False, True):
        cfg = e2e_config(tmp_path / 'images', tmp_path)
        cfg.optim_wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')
        apply_options(cfg, arguments('c.py', amp=amp), 'train')
        said = problems(cfg, 'train', 1, gpu=False)
        assert said == ([] if amp else [
            'optim_wrapper.type=AmpOptimWrapper needs a GPU; add --amp, which trains in bfloat16 on a CPU too'])
        assert not amp or cfg.optim_wrapper.type == 'mmincubation.AutocastOptimWrapper'
        assert problems(cfg, 'train', 1, gpu=True) == []


@pytest.mark.parametrize('mean, std, warned', [
    ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225], True), ([0.5] * 3, [0.5] * 3, True),
    ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], False), ([0, 0, 0], [1, 1, 1], False), (None, None, False)])
def test_the_scale_of_pixels(mean, std, warned):
    cfg = Config(dict(model=dict(type='MaskRCNN', data_preprocessor=dict(mean=mean, std=std))))
    assert [line.startswith('model.data_preprocessor.mean') for line in pixel_warnings(cfg)] == [True] * warned


IMAGENET = dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375])
HALF = dict(mean=[127.5] * 3, std=[127.5] * 3)


@pytest.mark.parametrize('given, stated, said', [
    (IMAGENET | dict(bgr_to_rgb=True), None, ''), (HALF | dict(bgr_to_rgb=True), None, ''),
    (HALF | dict(bgr_to_rgb=True), .5, ''), (dict(HALF), .5, ''),
    (IMAGENET | dict(bgr_to_rgb=True), .5, r'mean=\[123.675, .*but .*config.json: pretrained_cfg says mean=\[127.5, '),
    (IMAGENET, None, 'bgr_to_rgb is False, and mean=.* is in the order of RGB: give bgr_to_rgb=True'),
    ({}, None, 'has no mean and no std, and the ViT of .*a.safetensors .*give mean=.123.675'),
    ({}, .5, 'has no mean and no std.*give mean=.127.5')])
@pytest.mark.parametrize('backbone', ['ViTBackbone', 'TimmViT', 'ResNet'])
def test_the_pixels_of_the_weights(given, stated, said, backbone, tmp_path):
    write_tensors(tmp_path / 'a.safetensors', dict(a=torch.ones(1)), {})
    if stated:
        (tmp_path / 'config.json').write_text(json.dumps(dict(
            architecture='vit_tiny_patch16_224', pretrained_cfg=dict(mean=[stated] * 3, std=[stated] * 3))))
    cfg = Config(dict(default_scope='mmdet', model=dict(
        type='MaskRCNN', data_preprocessor=dict(type='mmdet.DetDataPreprocessor', **given), backbone=dict(
            type=f'mmincubation.{backbone}', init_cfg=dict(
                type='Pretrained', checkpoint=str(tmp_path / 'a.safetensors'))))))
    found = list(pixel_warnings(cfg))
    assert len(found) == bool(said and backbone != 'ResNet') and all(re.search(said, line) for line in found)
    cfg.model.backbone.init_cfg = None  # random weights want nothing
    assert list(pixel_warnings(cfg)) == []
    if said and not given:
        cfg.train_dataloader = dict(dataset=dict(pipeline=[dict(type='mmcv.Normalize')]))
        assert list(pixel_warnings(cfg)) == []


def test_other_mean_and_std_are_no_pixels():
    cfg = Config(dict(model=dict(type='x', head=dict(init_cfg=dict(type='Normal', mean=0., std=0.01)))))
    assert list(pixel_warnings(cfg)) == []
