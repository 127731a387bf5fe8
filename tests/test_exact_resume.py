"""Killed at any moment and started again, a run ends as if nothing had happened; see tests/resumed.py."""
import random
from pathlib import Path

import pytest

from tests.fork_server import Trainer
from tests.resumed import assert_same_run
from tests.toy import e2e_config, incubation_config, write_images

CROP = [dict(type='torchvision.transforms.RandomCrop', size=8, padding=4)]
ITERATION = 'mmincubation.exact.loops.seed_process'  # called as each iteration begins


@pytest.fixture(scope='module')
def trainer():
    server = Trainer('mmincubation.datasets.classification', 'mmincubation.incubation')
    yield server
    server.close()


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
def incubation(folder, trainer):
    """Path of a config and work dir of its run; 4 phases of 2 epochs of 4 iterations."""
    cfg = drawing(incubation_config(folder / 'images', folder / 'incubation', (2, 2, 2), 2, .3, 'grow'))
    cfg.dump(folder / 'incubation.py')
    done = trainer.train(folder / 'incubation.py')
    assert done['code'] == 0, done['output']
    return folder / 'incubation.py', folder / 'incubation'


def killed_and_resumed(trainer, config: Path, work_dir: Path, kills: list[dict], *options, **how) -> None:
    """Start, be killed in each of the ways, and at last run to the end."""
    for kill in kills:
        done = trainer.train(config, '--work-dir', work_dir, '--resume', *options, **kill, **how)
        assert done['code'] is None, done['output']
    done = trainer.train(config, '--work-dir', work_dir, '--resume', *options, **how)
    assert done['code'] == 0, done['output']


def test_three_kills_at_chosen_iterations(trainer, incubation, tmp_path):
    config, whole = incubation
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (3, 7, 16)]  # meta, module_0 after its resume, module_1
    killed_and_resumed(trainer, config, tmp_path, kills)
    assert_same_run(tmp_path, whole)


def test_kills_in_validation_and_between_phases(trainer, incubation, tmp_path):
    config, whole = incubation
    kills = [dict(kill_at='mmincubation.engine.accuracy.Accuracy.compute_metrics:1'),
             dict(kill_at='mmincubation.incubation.loop.begin_module:1'),
             dict(kill_at='mmincubation.incubation.loop.write_tensors:1:after')]
    killed_and_resumed(trainer, config, tmp_path, kills)
    assert_same_run(tmp_path, whole)


def test_mid_epoch(trainer, folder, tmp_path):
    """A checkpoint every 3 of an epoch's 4 iterations, updates every 2: also within an accumulation."""
    cfg = drawing(incubation_config(folder / 'images', tmp_path / 'whole', (2, 1, 2), 2, .3))
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=3, max_keep_ckpts=2)
    cfg.optim_wrapper.accumulative_counts = 2
    cfg.dump(tmp_path / 'c.py')
    done = trainer.train(tmp_path / 'c.py')
    assert done['code'] == 0, done['output']
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (5, 6, 4, 7)]
    killed_and_resumed(trainer, tmp_path / 'c.py', tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


@pytest.mark.parametrize('ema', ['EMAHook', 'mmincubation.EMAHook'])
def test_end_to_end(trainer, folder, tmp_path, ema):
    cfg = drawing(e2e_config(folder / 'images', tmp_path / 'whole', 3, .3), 0, ema)
    cfg.train_cfg = dict(by_epoch=True, max_epochs=3, val_interval=1)  # as in any config, the tools take care of it
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', interval=1, save_best='auto')
    cfg.dump(tmp_path / 'c.py')
    done = trainer.train(tmp_path / 'c.py')
    assert done['code'] == 0, done['output']
    kills = [dict(kill_at='mmincubation.engine.accuracy.Accuracy.compute_metrics:1'), dict(kill_at=f'{ITERATION}:3')]
    killed_and_resumed(trainer, tmp_path / 'c.py', tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


def test_three_ranks(trainer, folder, tmp_path):
    """Three, because the sum of two does not depend on an order."""
    cfg = drawing(incubation_config(folder / 'images', tmp_path / 'whole', (2, 1, 2), 2, .3))
    cfg.train_dataloader.batch_size = 2
    cfg.dump(tmp_path / 'c.py')
    done = trainer.train(tmp_path / 'c.py', ranks=3)
    assert done['code'] == 0, done['output']
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (7, 8)]
    killed_and_resumed(trainer, tmp_path / 'c.py', tmp_path / 'killed', kills, ranks=3)
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


@pytest.mark.faults
def test_twenty_kills_at_random_moments(trainer, incubation, tmp_path):
    config, whole = incubation
    rng, kills = random.Random(0), 0
    while kills < 20:
        done = trainer.train(config, '--work-dir', tmp_path, '--resume', kill_after=rng.uniform(.3, 2.5))
        assert done['code'] in (0, None), done['output']
        kills += done['code'] is None
    killed_and_resumed(trainer, config, tmp_path, [])
    assert_same_run(tmp_path, whole)
