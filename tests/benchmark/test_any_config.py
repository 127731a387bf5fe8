"""tools/benchmark.py on configs of other forms than ours: what it says of them is what they are."""
from argparse import Namespace
from copy import deepcopy

import pytest
import torch

from mmincubation.benchmark import measure
from mmincubation.benchmark.batches import synthetic
from mmincubation.benchmark.measure import Options, measure_config
from mmincubation.benchmark.run import main
from mmincubation.benchmark.steps import Phases, build, plain
from mmincubation.config.load import load_config
from tests.benchmark.test_units import CPU
from tests.helpers.toy import e2e_config, incubation_config

ARGS = dict(device='cpu', phases=None, data=False, batch_size=2, baseline=False, repeats=1, out=None)


def rows(cfg, monkeypatch, *phases) -> dict:
    """What is said of each phase, by (phase, variant), without the time that steps take."""
    monkeypatch.setattr(measure, '_time', lambda cfg, steps, *more: {name: dict(median=1.) for name in steps})
    found = measure_config('cfg', cfg, Options(CPU, [*phases] or None, 2, baseline=True), lambda line: None)
    return {(row['phase'], row['variant']): row for row in found}


@pytest.mark.parametrize('changes, meta', [(dict(modules=2, meta_depth=2), 4), (dict(modules=[1, 3]), 2), ({}, 4)])
def test_units_are_those_of_the_division(changes, meta, monkeypatch):
    """Without `modules` a model has four."""
    cfg = incubation_config('none', 'none')
    cfg.model = dict(type=cfg.model.type, arch=cfg.model.arch, **changes)
    found = rows(cfg, monkeypatch)
    assert found['meta', 'ours']['units'] == found['meta', 'reference']['units'] == 3 * meta
    assert found['finetune', 'ours']['units'] == 3 * 4
    last = [row['units'] for (name, variant), row in found.items() if 'module_' in name and variant == 'ours'][-1]
    own = cfg.model.get('modules') or 4
    own, each = own[-1] if isinstance(own, list) else 4 // own, cfg.model.get('meta_depth', 1)
    assert last == 3 * own + meta - each  # nothing is downstream of it


@pytest.mark.parametrize('wrapper, phase, precision', [
    (dict(type='OptimWrapper'), {}, 'float32'), ({}, {}, 'float32'),
    (dict(type='AmpOptimWrapper', dtype='bfloat16', loss_scale='dynamic'), {}, 'bfloat16'),
    (dict(type='mmincubation.AutocastOptimWrapper'), {}, 'bfloat16'),
    ({}, dict(type='mmincubation.AutocastOptimWrapper'), 'bfloat16'),
    (dict(type='mmincubation.AutocastOptimWrapper'), dict(type='OptimWrapper'), 'float32')])
def test_the_precision_is_that_of_the_step(wrapper, phase, precision, monkeypatch):
    cfg = incubation_config('none', 'none')
    cfg.optim_wrapper.pop('type')
    cfg.optim_wrapper.update(wrapper)
    cfg.train_cfg.phases.module.optim_wrapper = phase
    found = rows(cfg, monkeypatch, 'module_0', 'modules')
    assert found['module_0', 'ours']['precision'] == found['modules', 'ours']['precision'] == precision
    assert found['module_0', 'reference']['precision'] == 'float32'


def test_an_optimiser_of_which_little_is_said(monkeypatch):
    cfg = e2e_config('none', 'none')
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=.1)
    assert rows(cfg, monkeypatch)['train', 'reference']['units'] == 12


def retinanet(cfg):
    """The demo's detector with a head of one stage, in half precision as mmdet's configs have it."""
    cfg, channels = deepcopy(cfg), cfg.model.neck.out_channels
    cfg.model = dict(
        type='RetinaNet', data_preprocessor=cfg.model.data_preprocessor, backbone=cfg.model.backbone,
        neck=cfg.model.neck, bbox_head=dict(
            type='RetinaHead', num_classes=3, in_channels=channels, stacked_convs=1, feat_channels=channels,
            anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
                                  ratios=[.5, 1., 2.], strides=list(cfg.model.rpn_head.anchor_generator.strides)),
            loss_cls=dict(type='FocalLoss', use_sigmoid=True), loss_bbox=dict(type='L1Loss')),
        train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=.5, neg_iou_thr=.4, min_pos_iou=0),
                       sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1))
    cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale = 'AmpOptimWrapper', 'dynamic'
    return cfg


def test_a_detector_of_one_stage():
    cfg = retinanet(load_config('configs/demo/maskrcnn_vit_demo_e2e.py'))
    batch = synthetic(cfg, (96, 96), 2)
    assert 0 <= min(labels := torch.cat([s.gt_instances.labels for s in batch['data_samples']])) <= max(labels) < 3
    for make, form in ((Phases(cfg).ours, cfg), (Phases(cfg).reference, plain(cfg))):
        assert {'loss_cls', 'loss_bbox'} <= set(make(build(form, CPU), 'train', batch)())


@pytest.mark.parametrize('name, key, size', [
    ('maskrcnn', 'roi_head.bbox_head', (64, 64)), ('upernet', 'decode_head', (64, 64))])
def test_heads_in_a_list(name, key, size):
    """As Cascade R-CNN and cascades of segmentors have them."""
    cfg = load_config(f'configs/demo/{name}_vit_demo_e2e.py')
    owner, last = (cfg.model.roi_head, 'bbox_head') if '.' in key else (cfg.model, key)
    expected, owner[last] = synthetic(cfg, size, 2), [owner[last]] * 2
    for one, other in zip(*(batch['data_samples'] for batch in (expected, synthetic(cfg, size, 2))), strict=True):
        assert one.gt_instances.labels.equal(other.gt_instances.labels) if name == 'maskrcnn' else \
            one.gt_sem_seg.data.equal(other.gt_sem_seg.data)


def test_a_config_that_trains_nothing_is_one_line(tmp_path, capsys):
    cfg = e2e_config('none', 'none')
    cfg.pop('train_dataloader')
    cfg.dump(tmp_path / 'part.py')
    assert main(Namespace(configs=[str(tmp_path / 'part.py')], **ARGS)) == 2
    assert capsys.readouterr().err.endswith('the config cannot be trained: it has no train_dataloader\n')


def test_a_file_that_is_missing_is_one_line(tmp_path, capsys):
    cfg = e2e_config('none', 'none')
    cfg.model.arch, cfg.model.init_cfg = 'auto', dict(type='Pretrained', checkpoint=str(tmp_path / 'gone.safetensors'))
    cfg.dump(tmp_path / 'auto.py')
    assert main(Namespace(configs=[str(tmp_path / 'auto.py')], **ARGS)) == 2
    assert 'gone.safetensors' in capsys.readouterr().err
