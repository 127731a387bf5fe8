"""What hooks count is in the checkpoints, or the run names the hook for which it is not."""
import threading
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import pytest
import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from torch import nn

from mmincubation.config import settings
from mmincubation.engine import launch
from mmincubation.recovery.plain_state import NotPlain, decode, encode, mark
from mmincubation.registry import HOOKS
from tests.helpers.forked import ranks
from tests.helpers.toy import arguments, e2e_config, incubation_config, write_images


class Killed(BaseException):
    """A kill, at a place that the test chooses."""


class State:
    """Something that is no plain data."""

    def __init__(self):
        self.sum, self.lock = 0, threading.Lock()


@HOOKS.register_module(name='Counts')
class Counts(Hook):
    """A user's hook: counts in many kinds of attributes, wherever a run calls it."""
    seen = {}

    def __init__(self, kill: int = 0, name: str = 'a'):
        self.kill, self.name = kill, name
        self.calls, self.best = Counter(), float('-inf')
        self.window, self.by_epoch = deque(maxlen=3), defaultdict(list)
        self.mean, self.last, self.text = torch.zeros(2), np.float64(0), ''
        self.pair, self.kinds, self.lazy = (0, [0]), set(), None

    def before_train(self, runner):
        self.started = runner.timestamp  # of this start, not of the run
        self.calls['before_train'] = 0

    def before_train_epoch(self, runner):
        self.calls['before_train_epoch'] += 1

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.calls['iter'] += 1
        self.window.append(runner.iter)
        self.by_epoch[runner.epoch].append(batch_idx)
        self.mean += torch.tensor([1., batch_idx])
        self.text, self.pair, self.lazy = self.text + 'x', (self.pair[0] + 1, [batch_idx]), {'iter': runner.iter}
        self.kinds.add(batch_idx % 2)
        if runner.iter + 1 == self.kill:
            raise Killed

    def after_train_epoch(self, runner):
        self.calls['after_train_epoch'] += 1

    def before_val(self, runner):
        self.calls['before_val'] += 1

    def after_val_epoch(self, runner, metrics=None):
        self.calls['after_val_epoch'] += 1
        self.last = max(self.last, np.float64(len(metrics)))

    def after_train(self, runner):
        Counts.seen[self.name] = {key: encode(value) for key, value in vars(self).items() if key not in (
            'kill', 'started', 'name', '_priority')}


@HOOKS.register_module(name='Keeps')
class Keeps(Hook):
    """A user's hook whose changes cannot be stored, beside what does not change or is the run's."""

    def __init__(self):
        self.done, self.other, self.state, self.network = False, State(), State(), nn.Linear(1, 1)
        self.frozen, self.generator = nn.Linear(1, 1), torch.Generator()

    def before_train(self, runner):
        self.model, self.runner, self.weights = runner.model, runner, list(runner.model.parameters())

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.done = True
        self.state.sum += 1
        with torch.no_grad():
            self.network.weight += 1
        torch.rand(1, generator=self.generator)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder / 'images')
    return folder / 'images'


@pytest.fixture(autouse=True)
def another_kill(monkeypatch):
    monkeypatch.setattr(settings, 'HARMLESS', (*settings.HARMLESS, 'custom_hooks'))


def train(cfg, work_dir, resume=None) -> int:
    path = work_dir.parent / f'{work_dir.name}.py'
    cfg.dump(path)
    name = f'experiment_name={work_dir}-{resume}'
    return launch.train(arguments(path, name, work_dir=str(work_dir), resume=resume))


@pytest.mark.parametrize('loop, kill', [
    ('epoch', 5), ('best', 5), ('iter', 4), ('iter', 7), ('incub', 7), ('incub best', 14)])
def test_a_hook_goes_on_with_what_it_had_counted(images, tmp_path, loop, kill):
    """Killed after a checkpoint of every second iteration, or of an epoch, or of a best one within a validation, of the
    assembled model too."""
    seen = {}
    for name in ('whole', 'killed'):
        cfg = (incubation_config if 'incub' in loop else e2e_config)(images, tmp_path / name)
        cfg.custom_hooks += [dict(type='mmincubation.Counts', name=each) for each in (name, f'{name} 2')]
        cfg.train_cfg.val_interval = 1
        if loop == 'iter':
            cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=8, val_interval=3)
            cfg.log_processor.by_epoch = False
            cfg.default_hooks.checkpoint.update(by_epoch=False, interval=2)
        if 'best' in loop:
            cfg.default_hooks.checkpoint.update(save_best='auto')
        if name == 'killed':
            cfg.custom_hooks[-1].kill = kill
            with pytest.raises(Killed):
                train(cfg, tmp_path / name)
            cfg.custom_hooks[-1].kill = 0
        assert train(cfg, tmp_path / name, 'auto') == 0
        seen[name] = Counts.seen[name], Counts.seen[f'{name} 2']
    assert seen['whole'][0]['pair'][2][0] == (16 if 'incub' in loop else 8)
    for whole, killed in zip(*seen.values(), strict=True):
        assert mark(killed, set()) == mark(whole, set()), (whole, killed)


def test_early_stopping_waits_on(images, tmp_path):
    """d14: three validations without progress, of which the first two came before the kill."""
    done = {}
    for name in ('whole', 'killed'):
        cfg = e2e_config(images, tmp_path / name, epochs=9)
        cfg.train_cfg.val_interval = 1
        cfg.custom_hooks += [dict(type='EarlyStoppingHook', monitor='accuracy/top1', min_delta=1000., patience=4),
                             dict(type='mmincubation.Counts', name=name)]
        if name == 'killed':
            cfg.custom_hooks[-1].kill = 14
            with pytest.raises(Killed):
                train(cfg, tmp_path / name)
            cfg.custom_hooks[-1].kill = 0
        assert train(cfg, tmp_path / name, 'auto') == 0
        done[name] = (tmp_path / name / 'last_checkpoint').read_text().rpartition('/')[2]
    assert done == dict(whole='epoch_5.pth', killed='epoch_5.pth')


def test_what_cannot_be_stored_is_named_once(images, tmp_path, capfd):
    cfg = e2e_config(images, tmp_path / 'run')
    cfg.custom_hooks += [dict(type='mmincubation.Keeps')]
    assert train(cfg, tmp_path / 'run') == 0
    (line, ) = [line for line in capfd.readouterr().out.splitlines() if 'will not be exactly this one' in line]
    lost = 'done is a flag, state holds a State, network holds a Linear, generator holds a Generator'
    assert f'in Keeps: {lost}; ' in line


def test_a_hook_that_counts_after_the_checkpoint_is_named(images, tmp_path, capfd):
    for priority in ('LOWEST', 'LOW'):
        cfg = e2e_config(images, tmp_path / priority)
        cfg.custom_hooks += [dict(type='mmincubation.Counts', priority=priority)]
        assert train(cfg, tmp_path / priority) == 0
        assert ('Counts: it runs after CheckpointHook' in capfd.readouterr().out) == (priority == 'LOWEST')


class Differs(Hook):
    """A user's hook that counts something else on each rank, and the same."""

    def __init__(self):
        self.same = self.sum = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.same, self.sum = self.same + 1, self.sum + get_rank()


class Same(Hook):
    """A user's hook that counts the same on each rank, and adds a word to the checkpoint."""
    seen = 0

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.seen += 1

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['word'] = 'mine'


def test_a_hook_that_differs_between_the_ranks_is_named(images, tmp_path):
    cfg = e2e_config(images, tmp_path / 'run')
    cfg.custom_hooks += [dict(type=f'tests.recovery.test_hook_states.{name}') for name in ('Differs', 'Same')]
    cfg.dump(tmp_path / 'run.py')
    both = ranks(tmp_path, 2, tmp_path / 'run.py')
    assert [run.code() for run in both] == [0, 0], both[0].text()
    (line, ) = [line for line in both[0].text().splitlines() if 'will not be exactly' in line]
    assert 'in Differs: it differs between the ranks, that of rank 0 is kept; a hook' in line
    assert torch.load(tmp_path / 'run/epoch_2.pth', weights_only=False)['hook_states']['Same'] == dict(seen=4)


def test_stock_hooks_and_ours_are_not_named(images, tmp_path, capfd):
    for name, make in (('e2e', e2e_config), ('incub', incubation_config)):
        cfg = make(images, tmp_path / name)
        cfg.default_hooks |= dict(logger=dict(type='LoggerHook', interval=1), timer=dict(type='IterTimerHook'))
        cfg.custom_hooks += [dict(type='mmincubation.EMAHook'), dict(type='SyncBuffersHook')]
        assert train(cfg, tmp_path / name) == 0
    assert 'will not be exactly' not in capfd.readouterr().out


PLAIN = [None, True, 3, float('inf'), 'text', b'bytes', 1j, (1, (2, [3])), {1: {2}, 'a': frozenset('b')},
         Counter('aab'), OrderedDict(b=1, a=2), defaultdict(list, {1: [2]}), deque([1, 2], 2), np.float32(0.1),
         np.arange(3), [np.int64(2)]]


@pytest.mark.parametrize('value', PLAIN, ids=str)
def test_plain_data_survive_a_checkpoint(tmp_path, value):
    from mmincubation.compat.safe_globals import allow_mm_checkpoints
    allow_mm_checkpoints()
    torch.save(encode(value), tmp_path / 'a.pth')
    back = decode(torch.load(tmp_path / 'a.pth', weights_only=True), torch.device('cpu'))
    assert type(back) is type(value)
    assert np.array_equal(back, value) if isinstance(value, np.ndarray) else back == value
    assert getattr(back, 'maxlen', 0) == getattr(value, 'maxlen', 0)
    assert getattr(back, 'default_factory', 0) == getattr(value, 'default_factory', 0)


@pytest.mark.parametrize('value', [object(), [State()], nn.Parameter(torch.ones(1)), defaultdict(lambda: 1), print,
                                   np.array(['text'])], ids=lambda v: type(v).__name__)
def test_the_rest_is_not_plain(value):
    with pytest.raises(NotPlain):
        encode(value)
