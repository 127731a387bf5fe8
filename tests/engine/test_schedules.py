"""The rates of parameter groups while a run goes on: schedules, scaling, checkpoints."""
import math

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.config.scaling import batch_warnings
from mmincubation.engine.launch import train
from mmincubation.models import ViTClassifier
from tests.engine.test_optim import ARCH, LR, wrap
from tests.helpers.toy import arguments, e2e_config, incubation_config, write_images

# --- schedules

def rates_of(iterations, *schedulers):
    """The rates of all groups in each iteration."""
    wrapper = wrap(ViTClassifier(ARCH), dict(layer_decay=0.5))
    built = [PARAM_SCHEDULERS.build(dict(s, optimizer=wrapper)) for s in schedulers]
    history = []
    for _ in range(iterations):
        history.append([group['lr'] for group in wrapper.optimizer.param_groups])
        wrapper.optimizer.step()
        for scheduler in built:
            scheduler.step()
    return history


RATIOS = [r for after in (5, 4, 3, 2, 1, 0) for r in [0.5**after] * 2]
WARMUP = dict(type='LinearLR', start_factor=0.1, by_epoch=False, end=10)
LAST = (1 + math.cos(math.pi * 29 / 30)) / 2  # of a cosine's 30 iterations


@pytest.mark.parametrize('schedule, at', [
    (dict(type='MultiStepLR', by_epoch=False, milestones=[30, 36], gamma=0.1),
     {0: 0.1, 9: 1.0, 10: 1.0, 29: 1.0, 30: 0.1, 35: 0.1, 36: 0.01, 39: 0.01}),
    (dict(type='PolyLR', by_epoch=False, begin=10, end=40, power=1.0, eta_min=0.),
     {0: 0.1, 10: 1.0, 25: 14 / 29, 38: 1 / 29, 39: 0.}),  # mmengine is at its end one iteration early
    (dict(type='CosineAnnealingLR', by_epoch=False, begin=10, end=40, eta_min_ratio=0.1),
     {0: 0.1, 10: 1.0, 25: 0.55, 39: 0.1 + 0.9 * LAST}),
    (dict(type='CosineAnnealingLR', by_epoch=False, begin=10, end=40, eta_min=0.),
     {0: 0.1, 10: 1.0, 25: 0.5, 39: LAST}),
], ids=['steps', 'poly', 'cosine ratio', 'cosine'])
def test_schedules_keep_the_ratios(schedule, at):
    history = rates_of(40, WARMUP, schedule)
    for iteration, factor in at.items():
        assert history[iteration] == pytest.approx([LR * factor * ratio for ratio in RATIOS], rel=1e-6), iteration
    for now in filter(all, history):
        assert [rate / now[-1] for rate in now] == pytest.approx(RATIOS, rel=1e-6)


def test_an_absolute_end_is_the_same_for_all_layers():
    """A trap, not a wish: with `eta_min` the stem's rate, 1/32 of the base, rises."""
    history = rates_of(40, dict(type='CosineAnnealingLR', by_epoch=False, end=40, eta_min=1e-4))
    assert history[0] == pytest.approx([LR * ratio for ratio in RATIOS])
    assert history[-1] == pytest.approx([1e-4] * 12, rel=0.02)


# --- in a run

def test_auto_scaling_scales_all_groups_and_checkpoints_carry_them(tmp_path):
    class Rates(Hook):
        def before_train_iter(self, runner, batch_idx, data_batch=None):
            seen.append([group['lr'] for group in runner.optim_wrapper.param_groups])

    seen = []
    write_images(tmp_path / 'images')
    cfg = e2e_config(tmp_path / 'images', tmp_path / 'run', epochs=1, param_scheduler=None,
                     auto_scale_lr=dict(enable=True, base_batch_size=3),
                     optim_wrapper=dict(paramwise_cfg=dict(layer_decay=0.5)))
    runner = Runner.from_cfg(cfg)
    runner.register_hook(Rates())
    runner.train()
    ratios = [rate / cfg.optim_wrapper.optimizer.lr for rate in seen[0]]
    # Batch 6 for 3; the last is what mmengine logs as `base_lr`.
    assert ratios == pytest.approx([*(2 * ratio for ratio in RATIOS), 1])
    allow_mm_checkpoints()
    groups = torch.load(tmp_path / 'run/epoch_1.pth', weights_only=True)['optimizer']['param_groups']
    assert [group['layer'] for group in groups[::2]] == ['stem', *(f'block {i}' for i in range(4)), 'rest']


@pytest.mark.parametrize('options, place', [
    (['optim_wrapper.accumulative_counts=4'], 'optim_wrapper'),
    (['train_cfg.phases.finetune.optim_wrapper.accumulative_counts=4'], 'train_cfg.phases.finetune.optim_wrapper'),
])
def test_auto_scaling_refuses_accumulation(tmp_path, capsys, options, place):
    write_images(tmp_path / 'images')
    cfg = incubation_config(tmp_path / 'images', tmp_path / 'run', auto_scale_lr=dict(base_batch_size=6))
    cfg.dump(tmp_path / 'run.py')
    args = arguments(tmp_path / 'run.py', *options, auto_scale_lr=True)
    assert train(args) == 2
    assert capsys.readouterr().err == (
        f'error: {place}.accumulative_counts=4: auto_scale_lr would not see it; drop --auto-scale-lr and set '
        f'{place}.optimizer.lr for 4 x batch_size x ranks images\n')
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('batch, ranks, counts, base, enabled, warned', [
    (6, 1, 1, 6, False, False), (6, 2, 1, 12, False, False), (3, 1, 2, 6, False, False), (6, 1, 1, None, False, False),
    (6, 1, 1, 12, True, False), (6, 2, 1, 6, False, True), (6, 1, 2, 6, False, True)])
def test_a_batch_that_the_rate_is_not_for_is_said(batch, ranks, counts, base, enabled, warned):
    cfg = e2e_config('images', 'run', train_dataloader=dict(batch_size=batch))
    cfg.optim_wrapper.accumulative_counts = counts
    if base:
        cfg.auto_scale_lr = dict(base_batch_size=base, enable=enabled)
    line = ''.join(batch_warnings(cfg, ranks))
    assert bool(line) == warned
    assert not line or f'for batches of {base} images, this run makes batches of {batch * ranks * counts}' in line
