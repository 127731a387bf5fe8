"""The learning rate of every phase of the shipped configs, at every iteration, against its definition."""
import math

import pytest
from mmengine.config import Config
from mmengine.runner import Runner

from tests.helpers.paths import ROOT
from tests.helpers.toy import e2e_config, incubation_config

CONFIGS = ROOT / 'configs'
EPOCH = 4  # iterations: 24 images, batch 6


def expected(base: float, epochs: int, warmup: int, size: int, low: float = 1e-5) -> list[float]:
    """Straight from 1e-6 to `base` over the warm-up, then half a cosine to `low`."""
    begin, end = warmup * size, epochs * size
    line = [1e-6 + (base - 1e-6) * t / (begin - 1) for t in range(begin)]
    return line + [low + (base - low) * (1 + math.cos(math.pi * t / (end - begin))) / 2 for t in range(end - begin)]


def curve(runner, steps: int) -> list[float]:
    """The learning rate before each of `steps` iterations; every group has it."""
    rates = []
    for _ in range(steps):
        rates.append(runner.optim_wrapper.optimizer.param_groups[0]['lr'])
        assert {group['lr'] for group in runner.optim_wrapper.optimizer.param_groups} == {rates[-1]}
        for scheduler in runner.param_schedulers:
            assert not scheduler.by_epoch
            scheduler.step()
    return rates


def shrunk(name: str, toy: Config) -> Config:
    """The toy's model and data with a shipped config's loop, optimiser and schedule."""
    real = Config.fromfile(CONFIGS / name)
    toy.merge_from_dict(dict(train_cfg=dict(real.train_cfg, _delete_=True), optim_wrapper=dict(
        real.optim_wrapper, _delete_=True), auto_scale_lr=real.auto_scale_lr))
    toy.param_scheduler = real.param_scheduler
    return toy


@pytest.mark.parametrize('name, base, module, warmup', [
    ('imagenet/vit_b_incub.py', 2e-3, 100, 20), ('imagenet/vit_h_incub.py', 2e-3, 100, 20),
    ('imagenet/vit_l_incub_50_50.py', 2e-3, 50, 10), ('imagenet/vit_h_incub_25_25.py', 2e-3, 25, 5),
    ('cifar100/deit_t_128_incub.py', 5e-4, 100, 20)])
def test_phases(images, tmp_path, name, base, module, warmup):
    runner = Runner.from_cfg(shrunk(name, incubation_config(images, tmp_path, modules=4)))
    loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
    lengths = []
    for phase in loop.phases:
        loop.phase = phase
        loop._enter()
        rates = curve(runner, phase.epochs * EPOCH)
        first = dict(meta=20, finetune=0).get(phase.name, warmup)
        assert rates == pytest.approx(expected(base, phase.epochs, first, EPOCH), rel=1e-9)
        assert rates[0] == pytest.approx(1e-6 if first else base) and max(rates) == pytest.approx(base)
        if first:
            assert rates[first * EPOCH - 1] == pytest.approx(base)
        assert rates[-1] == pytest.approx(1e-5, rel=0.1)
        lengths.append(phase.epochs)
    assert lengths == [300, *4 * [module], module]


@pytest.mark.parametrize('name, rates', [
    ('imagenet/vit_l_e2e.py', expected(2e-3, 300, 20, EPOCH)),
    ('cifar100/deit_t_32_e2e.py', expected(5e-4, 300, 20, EPOCH)),
    ('imagenet/vit_l_384_incub.py', expected(5e-6, 30, 5, EPOCH, low=5e-6))])
def test_without_phases(images, tmp_path, name, rates):
    runner = Runner.from_cfg(shrunk(name, e2e_config(images, tmp_path)))
    runner._train_loop = runner.build_train_loop(runner._train_loop)
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    runner.param_schedulers = runner.build_param_scheduler(runner.param_schedulers)
    assert curve(runner, len(rates)) == pytest.approx(rates, rel=1e-9)


def test_a_module_of_imagenet_at_its_real_length(images, tmp_path):
    """625 iterations an epoch: rounding does not add up over 62,500 of mmengine's steps."""
    runner = Runner.from_cfg(shrunk('imagenet/vit_l_incub.py', incubation_config(images, tmp_path, modules=4)))
    runner.optim_wrapper = runner.build_optim_wrapper(runner.optim_wrapper)
    cfgs = [dict(cfg, end=cfg.get('end', 100), epoch_length=625) for cfg in runner.param_schedulers]
    runner.param_schedulers = runner.build_param_scheduler(cfgs)
    rates, truth = curve(runner, 62_500), expected(2e-3, 100, 20, 625)
    for t in (0, 6_250, 12_499, 12_500, 31_250, 37_500, 62_499):
        assert rates[t] == pytest.approx(truth[t], rel=1e-6), t


def test_the_papers_code_reads_the_same_configs(images, tmp_path):
    """Moved by epochs, one late, and not clipped without AMP."""
    cfg = shrunk('imagenet/vit_b_incub.py', incubation_config(images, tmp_path, modules=4))
    cfg.train_cfg.recipe, cfg.optim_wrapper.type = 'paper_code', 'OptimWrapper'
    runner = Runner.from_cfg(cfg)
    loop = runner._train_loop = runner.build_train_loop(runner._train_loop)
    loop._enter()
    rates = []
    for _ in range(25):
        rates.append(runner.optim_wrapper.optimizer.param_groups[0]['lr'])
        for scheduler in runner.param_schedulers:
            scheduler.step()
    assert rates == pytest.approx([1e-6, *expected(2e-3, 300, 20, 1)[:24]], rel=1e-9)
    loop.phase = loop.phases[5]
    loop._enter()
    assert loop.phase.name == 'finetune' and not runner.optim_wrapper.clip_grad_kwargs
