"""How long a run waits for data: counted by phase, said in the log, kept over resumes; and workers that live on."""
import os
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.hooks import cost
from mmincubation.result import read_result
from mmincubation.resumable import timed_loader as timed
from mmincubation.resumable.timed_loader import TimedLoader
from tests.helpers.paths import ROOT
from tests.helpers.toy import incubation_config
from tests.hooks.test_cost import Clock, make_runner

EPOCHS = dict(type='mmincubation.EpochLoop', max_epochs=2, val_interval=1)


@pytest.fixture
def clock(monkeypatch):
    """An image takes a second to load, a validation a thousand, all else no time."""
    for module in (cost, timed):
        monkeypatch.setattr(module, 'perf_counter', lambda: Clock.now)


@HOOKS.register_module(name='WaitSlowStep')
class SlowStep(Hook):
    """Two seconds a step."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        Clock.now += 2


def slow(tmp_path, **changes):
    return make_runner(tmp_path, log_level='INFO', hooks=[
        dict(type='mmincubation.CostMeter'), dict(type='mmincubation.ResultHook'), dict(type='WaitSlowStep'),
        dict(type='CostSlowEpochEnd')], **changes)


def phase(folder) -> dict:
    [found] = read_result(folder / 'result.json')['phases']
    return found


def test_the_wait_for_data_is_a_part_of_the_seconds(tmp_path, clock):
    slow(tmp_path, train=EPOCHS).train()
    assert (phase(tmp_path)['seconds'], phase(tmp_path)['data_seconds']) == (20 + 6 * 2, 20)
    [log] = tmp_path.glob('*/*.log')
    assert log.read_text().count('train: waited for data 62.5% of 16.0 s') == 2  # 10 of 16, in each epoch


def test_of_a_loop_over_iterations(tmp_path, clock):
    train = dict(type='mmincubation.IterLoop', max_iters=6, val_interval=2)
    sampler = {'train_dataloader.sampler.type': 'InfiniteSampler', 'default_hooks.checkpoint.by_epoch': False}
    slow(tmp_path, train=train, **sampler).train()
    assert (phase(tmp_path)['seconds'], phase(tmp_path)['data_seconds']) == (24 + 6 * 2, 24)


def test_of_all_ranks(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(cost, 'get_world_size', lambda: 4)
    slow(tmp_path, train=EPOCHS).train()
    assert (phase(tmp_path)['seconds'], phase(tmp_path)['data_seconds']) == (4 * 32, 4 * 20)


def test_of_loops_that_do_not_count_it(tmp_path, clock):
    slow(tmp_path).train()
    assert phase(tmp_path)['seconds'] == 32 and 'data_seconds' not in phase(tmp_path)


@pytest.mark.parametrize('counted', [True, False], ids=['now', 'before it was counted'])
def test_a_resumed_run_counts_on(tmp_path, clock, counted):
    slow(tmp_path, train=EPOCHS).train()
    checkpoint = torch.load(tmp_path / 'epoch_2.pth', weights_only=False)
    assert checkpoint['cost_meter']['train']['data_seconds'] == 20
    if not counted:
        del checkpoint['cost_meter']['train']['data_seconds']
        torch.save(checkpoint, tmp_path / 'epoch_2.pth')
    slow(tmp_path, train=dict(EPOCHS, max_epochs=3), resume=True).train()
    assert phase(tmp_path)['seconds'] == 48 and phase(tmp_path).get('data_seconds') == (30 if counted else None)


class Takes(Dataset):
    """Six numbers, each of which takes a while; one may be bad."""

    def __init__(self, seconds: float, bad: int = -1):
        self.seconds, self.bad = seconds, bad

    def __len__(self):
        return 6

    def __getitem__(self, index):
        time.sleep(self.seconds)
        if index == self.bad:
            raise ValueError('bad')
        return index


@pytest.mark.parametrize('workers', [0, 1])
def test_waiting_is_what_the_reader_could_not_do_meanwhile(workers):
    loader = TimedLoader(Takes(0.05), num_workers=workers, persistent_workers=workers > 0)
    began = time.perf_counter()
    assert [int(batch) for batch in loader] == [*range(6)]
    spent = time.perf_counter() - began
    assert 0.3 <= loader.waited <= spent
    before = loader.waited
    for _ in loader:
        time.sleep(0.1)
    if workers:  # which load while this process sleeps
        assert loader.waited - before < 0.25
    else:
        assert loader.waited - before >= 0.3
    next(iter(loader))  # no more than its first batch
    assert [int(batch) for batch in loader] == [*range(6)]


@pytest.mark.parametrize('workers', [0, 1])
def test_errors_come_through(workers):
    seen = []
    with pytest.raises(ValueError, match='bad'):
        for batch in TimedLoader(Takes(0, bad=2), num_workers=workers):
            seen.append(int(batch))
    assert seen == [0, 1]


class Pid:
    """A transform that notes which process it ran in."""

    def __init__(self, file: str):
        self.file = Path(file)

    def __call__(self, image):
        with self.file.open('a') as file:
            file.write(f'{os.getpid()}\n')
        return image


@pytest.mark.parametrize('persistent', [True, False])
def test_workers_live_over_epochs_and_phases(images, tmp_path, persistent):
    cfg = incubation_config(images, tmp_path, epochs=(2, 1, 1))
    cfg.train_dataloader.update(num_workers=1, persistent_workers=persistent)
    cfg.train_dataloader.dataset.pipeline = [
        dict(type='tests.resumable.test_timed_loader.Pid', file=str(tmp_path / 'pids'))]
    cfg.experiment_name = str(tmp_path)
    allow_mm_checkpoints()
    runner = Runner.from_cfg(cfg)
    runner.train()
    pids = (tmp_path / 'pids').read_text().split()
    assert len(pids) == 5 * 24 and str(os.getpid()) not in pids
    assert len(set(pids)) == (1 if persistent else 5)
    phases = read_result(tmp_path / 'result.json')['phases']
    assert [p['name'] for p in phases if 'data_seconds' in p] == ['meta', 'module_0', 'module_1', 'finetune']
    assert all(0 < p['data_seconds'] < p['seconds'] for p in phases if p['name'] != 'assembled')
    if persistent:
        runner.train_dataloader._iterator._shutdown_workers()  # the garbage collector would wait five seconds for it


CONFIGS = [path for path in sorted(ROOT.glob('configs/*/*.py')) if path.parent.name != '_base_']


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: f'{path.parent.name}/{path.stem}')
def test_workers_of_the_configs_live_on_and_what_trains_is_pinned(path):
    """Validation of detectors and segmentors, one image at a time, is as shipped."""
    cfg = Config.fromfile(path)
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg[key]
        if path.parent.name == 'demo':  # loads faster than it could send
            assert loader.num_workers == 0
            continue
        assert loader.num_workers > 0 and loader.persistent_workers
        pinned = cfg.experiment.task == 'classification' or key == 'train_dataloader'
        assert loader.get('pin_memory', False) == pinned
