"""The estimate of a training step's memory against the real peak of the allocator, and what it answers for."""
import logging
from functools import cache

import pytest
import torch
from mmengine.config import Config
from mmengine.model import ExponentialMovingAverage
from mmengine.registry import MODELS

from bench.memory import BF16, LEAN, SMALL, classifier, detector, measured, segmentor
from mmincubation.check import batches, memory
from mmincubation.check.tracking import shapes_only
from mmincubation.config.load import load_config

TINY = dict(embed_dim=96, depth=4, num_heads=3, patch_size=16, img_size=128)


@pytest.mark.parametrize('cfg', [
    lambda: classifier(TINY, 8), lambda: classifier(TINY, 8, **BF16), lambda: detector(64, 4, 2, 128),
    lambda: detector(64, 4, 2, 128, **LEAN), lambda: segmentor(64, 4, 2, 128)],
    ids=['classifier', 'autocast', 'detector', 'checkpointing', 'segmentor'])
def test_the_estimate_is_within_the_stated_error(cfg):
    cfg = cfg()
    estimate = memory.estimate(cfg)[0].peak
    assert estimate == pytest.approx(measured(cfg), rel=memory.ERROR / 100)


def incubation() -> Config:
    """The demo's, with half of its blocks."""
    return load_config('configs/demo/vit_demo_incub.py', {'model.arch.depth': 12})


@cache
def estimated(gpus: int = 1) -> dict:
    """Its memory by phase, computed once."""
    return {p.phase: p for p in memory.estimate(incubation(), gpus)}


def test_phases_of_an_incubation():
    peaks = estimated()
    assert list(peaks) == ['meta', 'module_0', 'module_1', 'module_2', 'module_3', 'finetune']
    assert peaks['module_1'].parameters < 0.6 * peaks['finetune'].parameters  # 6 blocks of 12: the rest waits elsewhere
    assert peaks['finetune'].kept > 2 * peaks['module_0'].kept > 0
    assert peaks['module_0'].optimizer == pytest.approx(2 * peaks['module_0'].gradients, rel=0.01)  # AdamW


def test_ddp_buckets_and_accumulation_cost_a_copy_of_the_gradients():
    cfg = classifier(SMALL, 1)
    one, two = (memory.estimate(cfg, gpus)[0] for gpus in (1, 2))
    assert two.peak - one.peak == two.buckets == one.gradients
    cfg.optim_wrapper.accumulative_counts = 4
    cfg.train_dataloader.batch_size = 8  # the peak is in the middle of the step, where gradients are few
    adding = memory.estimate(cfg)[0].peak
    cfg.optim_wrapper.accumulative_counts = 1
    assert adding > memory.estimate(cfg)[0].peak + 0.5 * one.gradients


def test_checkpointing_and_bfloat16_are_seen():
    plain, lean = (memory.estimate(detector(64, 4, 2, 128, **more))[0].kept for more in ({}, LEAN))
    assert lean < 0.7 * plain


def test_vit_h_takes_no_memory():
    cfg = classifier(dict(name='vit_huge'), 64)
    peak = memory.estimate(cfg)[0]
    assert peak.parameters == pytest.approx(4 * 632e6, rel=0.01) and peak.peak > 40 * 2**30


def test_what_shapes_cannot_know_is_answered_with_the_most():
    with shapes_only() as counter:
        x = torch.zeros(10, 4)
        assert x[x[:, 0] > 0].shape == (10, 4) and len((x > 0).nonzero()) == 40 and bool((x > 0).any())
        assert x.sum().item() == 1. and x[0].numpy().tolist() == [0, 0, 0, 0]
        before = counter.live
        y = x.new_zeros(1000)
        assert counter.live == before + 4000 and y[5:].untyped_storage().nbytes() == 4000
        del y
        assert counter.live == before


def test_an_error_of_shapes_is_raised_without_a_traceback_on_the_console(caplog):
    log = logging.getLogger('torch._subclasses.fake_tensor')
    log.addHandler(caplog.handler)
    try:
        with pytest.raises(RuntimeError), shapes_only():
            torch.zeros(10, 4) + torch.zeros(3, 5)
    finally:
        log.removeHandler(caplog.handler)
    assert not caplog.records and not log.disabled


RESIZE = dict(type='Resize', scale=(1333, 800), keep_ratio=True)
SHORT = dict(type='RandomChoiceResize', scales=[256, 512, 1024], resize_type='ResizeShortestEdge', max_size=2048)
CROP = dict(type='RandomCrop', crop_type='absolute', crop_size=(1024, 1024))


@pytest.mark.parametrize('pipeline, size', [
    ([RESIZE], (800, 1344)),
    ([dict(type='RandomChoiceResize', scales=[(480, 1333), (800, 1333)], keep_ratio=True), CROP], (800, 1024)),
    ([dict(type='RandomResize', scale=(1024, 1024), ratio_range=(0.1, 2.0), keep_ratio=True), CROP], (1024, 1024)),
    ([dict(type='RandomChoice', transforms=[[RESIZE], [dict(type='Resize', scale=(64, 32))]])], (800, 1344)),
    ([dict(type='mmdet.Resize', scale=(64, 32), keep_ratio=False), dict(type='Pad', size=(96, 64))], (64, 96)),
    ([dict(type='Resize', scale=512)], (512, 512)), ([dict(type='Resize', scale=[64, 32])], (32, 64)),
    ([dict(type='Resize', scale=(64, 32)), dict(type='Pad', size=96)], (96, 96)),
    ([SHORT], (1024, 2048)), ([SHORT, dict(type='RandomCrop', crop_size=512)], (512, 512)),
    ([dict(type='RandomChoiceResize', scales=[256, 320])], (320, 320)),
    ([dict(type='RandomChoiceResize', scales=(64, 32))], (32, 64)),
    ([dict(type='ResizeShortestEdge', scale=(64, 32), max_size=96)], (32, 96)),
    ([dict(type='ResizeShortestEdge', scale=64)], None), ([dict(type='Resize', scale_factor=.5)], None),
    ([dict(type='RandomChoice', transforms=[dict(type='RandomFlip'), dict(type='Resize', scale=64)])], (64, 64)),
    ([dict(type='Resize', scale='large')], None), ([dict(type='RandomCrop')], None),
    ([dict(type='RandomFlip')], None)])
def test_largest_input(pipeline, size):
    model = dict(data_preprocessor=dict(pad_size_divisor=32))
    assert batches.input_size(model, dict(dataset=dict(type='X', pipeline=pipeline))) == size


def test_an_unbounded_input_is_named():
    cfg = detector(64, 4, 2, 128)
    cfg.train_dataloader.dataset.pipeline = [dict(type='LoadImageFromFile')]
    with pytest.raises(ValueError, match='bounds the size'):
        memory.estimate(cfg)


def test_modes_of_an_incubation():
    """Joint: the optimisers of all modules, the activations of one; parallel: what the largest module needs."""
    cfg, one = incubation(), estimated()
    cfg.train_cfg.mode = 'joint'
    joint = {p.phase: p for p in memory.estimate(cfg)}['modules']
    modules = [one[f'module_{i}'] for i in range(4)]
    assert joint.optimizer == pytest.approx(sum(p.optimizer for p in modules), rel=.001)
    assert joint.kept == max(p.kept for p in modules) and joint.gradients == max(p.gradients for p in modules)
    cfg.train_cfg.mode = 'parallel'
    parallel = {p.phase: p for p in memory.estimate(cfg)}['modules']
    assert parallel.saved == joint.saved  # files hold all states
    cfg.train_cfg.mode, cfg.optim_wrapper.accumulative_counts = 'sequential', 4  # a rank trains on four batches in turn
    adding = max(p.peak for p in memory.estimate(cfg) if p.phase.startswith('module_'))
    assert parallel.peak == adding > max(p.peak for p in modules)


def test_the_average_of_an_emahook_is_a_copy_of_the_weights():
    """Made before the first phase, of all; during fine-tuning only the target's stays."""
    hook = dict(type='mmincubation.EMAHook', ema_type='ExponentialMovingAverage')
    for cfg, before, name in ((incubation(), estimated(), 'finetune'), (classifier(TINY, 2), None, 'train')):
        before = before or {p.phase: p for p in memory.estimate(cfg)}
        cfg.custom_hooks = [hook]
        after = {p.phase: p for p in memory.estimate(cfg)}
        for phase in after.values():
            old = before[phase.phase]
            assert phase.peak - old.peak == phase.average and phase.saved[0] == 2 * old.saved[0]
            assert phase.average == (old.parameters if phase.phase == name else old.saved[0])
        made = ExponentialMovingAverage(MODELS.build(cfg.model)).module
        copied = sum(tensor.numel() * tensor.element_size() for tensor in [*made.parameters(), *made.buffers()])
        assert after[name].saved[0] == 2 * copied


@pytest.mark.parametrize('again', [True, False])
def test_what_is_spread_is_divided(again):
    """Fine-tuning of an incubation is, its other phases are not; see bench/sharding.py."""
    cfg, copies = incubation(), estimated(4)
    cfg.model_wrapper_cfg = dict(type='mmincubation.FullyShard', reshard_after_forward=again)
    spread = {p.phase: p for p in memory.estimate(cfg, 4)}
    assert spread['module_1'] == copies['module_1']
    assert spread['finetune'].saved == copies['finetune'].saved  # files are whole
    one, other = spread['finetune'], copies['finetune']
    assert (one.gradients, one.optimizer) == (pytest.approx(other.gradients / 4), pytest.approx(other.optimizer / 4))
    assert other.parameters - one.parameters == pytest.approx(other.gradients * 3 / 4)
    assert one.peak < other.peak and (one.buckets > one.gradients * 4) is not again
