"""Killed at any moment and started again, a run ends as if nothing had happened; see tests/helpers/resumed.py."""
import random

import pytest

from tests.helpers.forked import trained
from tests.helpers.resumed import assert_same_run, killed_and_resumed
from tests.helpers.toy import e2e_config, incubation_config, write_images

CROP = [dict(type='torchvision.transforms.RandomCrop', size=8, padding=4)]
PLATEAU = [dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', patience=0)]
ITERATION = 'mmincubation.resumable.loops.seed_process'  # called as each iteration begins


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('exact')
    write_images(root / 'images')
    return root


def drawing(cfg, workers: int = 2, ema: str = 'mmincubation.EMAHook'):
    """Draws in workers, in the model and between; an average of the weights; every iteration logged."""
    cfg.train_dataloader.update(num_workers=workers, persistent_workers=workers > 0)
    cfg.train_dataloader.dataset.pipeline = CROP
    cfg.model.data_preprocessor = dict(
        type='mmincubation.ClsDataPreprocessor', mixup=dict(type='timm.data.Mixup', mixup_alpha=.8, num_classes=3))
    cfg.custom_hooks.append(dict(type=ema, momentum=.1))
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    return cfg


@pytest.fixture(scope='module')
def incubation(folder):
    """Path of a config and work dir of its run; 4 phases of 2 epochs of 4 iterations."""
    cfg = drawing(incubation_config(folder / 'images', folder / 'incubation', (2, 2, 2), 2, .3, 'grow'))
    cfg.default_hooks.checkpoint.save_best = 'auto'
    cfg.param_scheduler += PLATEAU
    cfg.dump(folder / 'incubation.py')
    assert trained(folder / 'incubation.py', folder / 'incubation')
    return folder / 'incubation.py', folder / 'incubation'


def test_four_kills_at_chosen_iterations(incubation, tmp_path):
    """In meta, in module_0 after its resume, in module_1, and after the best checkpoint of the assembled model."""
    config, whole = incubation
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (3, 7, 16, 10)]
    killed_and_resumed(config, tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', whole)


def test_kills_in_validation_and_between_phases(incubation, tmp_path):
    config, whole = incubation
    kills = [dict(kill_at='mmincubation.models.accuracy.Accuracy.compute_metrics:1'),
             dict(kill_at='mmincubation.incubation.weights.begin_module:1'),
             dict(kill_at='mmincubation.incubation.weights.write_tensors:1:after')]
    killed_and_resumed(config, tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', whole)


def test_kills_inside_checkpoint_writes(incubation, tmp_path):
    config, whole = incubation
    kills = [dict(kill_at=f'os.{call}') for call in ('fsync:1', 'replace:1', 'replace:3:after', 'fsync:4')]
    killed_and_resumed(config, tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', whole)


def test_mid_epoch(folder, tmp_path):
    """A checkpoint every 3 of an epoch's 4 iterations, updates every 2: also within an accumulation."""
    cfg = drawing(incubation_config(folder / 'images', tmp_path / 'whole', (2, 1, 2), 2, .3))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=3, max_keep_ckpts=2)
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.dump(tmp_path / 'c.py')
    assert trained(tmp_path / 'c.py', tmp_path / 'whole')
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (5, 6, 4, 7)]
    killed_and_resumed(tmp_path / 'c.py', tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


@pytest.mark.parametrize('ema, schedules', [('EMAHook', []), ('mmincubation.EMAHook', PLATEAU)])
def test_end_to_end(folder, tmp_path, ema, schedules):
    cfg = drawing(e2e_config(folder / 'images', tmp_path / 'whole', 3, .3), 0, ema)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)  # as in any config, the tools take care of it
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, save_best='auto')
    cfg.param_scheduler += schedules
    cfg.dump(tmp_path / 'c.py')
    assert trained(tmp_path / 'c.py', tmp_path / 'whole')
    kills = [dict(kill_at=f'{ITERATION}:7'), dict(kill_at='mmincubation.models.accuracy.Accuracy.compute_metrics:1')]
    killed_and_resumed(tmp_path / 'c.py', tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


def test_three_ranks(folder, tmp_path):
    """Three, because the sum of two does not depend on an order."""
    cfg = drawing(incubation_config(folder / 'images', tmp_path / 'whole', (2, 1, 2), 2, .3))
    cfg.train_dataloader.batch_size = 2
    cfg.dump(tmp_path / 'c.py')
    assert trained(tmp_path / 'c.py', tmp_path / 'whole', 3)
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (7, 8)]
    killed_and_resumed(tmp_path / 'c.py', tmp_path / 'killed', kills, 3)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


@pytest.mark.faults
def test_twenty_kills_at_random_moments(incubation, tmp_path):
    """As many runs as it takes: one that is done before its time is compared, and the next one begins."""
    config, whole = incubation
    rng, kills, runs = random.Random(0), 0, 0
    while kills < 20:
        if trained(config, tmp_path / f'{runs}', kill_after=rng.uniform(.3, 1.5)):
            assert_same_run(tmp_path / f'{runs}', whole)
            runs += 1
        else:
            kills += 1
    assert trained(config, tmp_path / f'{runs}')
    assert_same_run(tmp_path / f'{runs}', whole)
