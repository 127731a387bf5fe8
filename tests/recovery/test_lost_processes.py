"""Killed workers, killed ranks and loggers that fail: an error in time that says what to do, or no error at all."""
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.visualization.vis_backend import BaseVisBackend

from mmincubation.errors import PROCESS_LOST
from tests.helpers.forked import ROOT, Run, ranks
from tests.helpers.shrink import shrink, write_data
from tests.recovery.test_preemption import config, same, weights

WITHIN = 60  # seconds, as promised


class Unreachable(BaseVisBackend):
    """A logger whose server never answers, asked for the first time by the config."""

    def __init__(self, save_dir=None):
        super().__init__(save_dir)

    def _init_env(self):
        raise ConnectionError('no route to tracker.example')

    @property
    def experiment(self):
        return self

    def add_config(self, config, **kwargs):
        self._init_env()

    def add_image(self, name, image, step=0, **kwargs):
        self._init_env()

    def add_scalar(self, name, value, step=0, **kwargs):
        self._init_env()

    def add_scalars(self, scalar_dict, step=0, file_path=None, **kwargs):
        self._init_env()

    def close(self):
        self._init_env()


def killed_worker(run: Run) -> None:
    """Kill one of its workers; it must end in time, in one line that names it."""
    victim = run.workers()[0]
    os.kill(victim, signal.SIGKILL)
    assert run.code(WITHIN) == PROCESS_LOST, run.text()
    assert re.search(rf'ProcessLost: DataLoader worker, pid {victim}, .*memory ran out.*--resume goes on', run.text())
    assert 'Traceback' not in run.text()


@pytest.mark.parametrize('persistent', [False, True])
def test_a_killed_worker_of_a_classifier(tmp_path, persistent):
    loader = dict(num_workers=2, persistent_workers=persistent)
    run = Run(tmp_path / 'out', 'train', config(tmp_path, delay=0.05, train_dataloader=loader))
    run.wait_for(r'Epoch\(train\) +\[1\]\[1/4\]')
    killed_worker(run)


@pytest.mark.faults
@pytest.mark.parametrize('leaf', ['coco/maskrcnn_vit_b_incub.py', 'ade20k/upernet_vit_b_incub.py'])
@pytest.mark.parametrize('persistent', [False, True])
def test_a_killed_worker_of_a_detector_and_a_segmentor(tmp_path, leaf, persistent):
    cfg = shrink(Config.fromfile(ROOT / 'configs' / leaf), write_data(tmp_path / 'data'))
    cfg.train_dataloader.update(num_workers=2, persistent_workers=persistent)
    cfg.train_cfg.update({key: 1000 for key in ('max_iters', 'max_epochs', 'val_interval') if key in cfg.train_cfg})
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.work_dir = str(tmp_path / 'run')
    cfg.dump(tmp_path / 'small.py')
    changes = ['model.decode_head.norm_cfg.type=BN', 'model.auxiliary_head.norm_cfg.type=BN'] * ('ade20k' in leaf)
    run = Run(tmp_path / 'out', 'train', tmp_path / 'small.py', *(['--cfg-options', *changes] if changes else []))
    run.wait_for(r'(Epoch|Iter)\(train\) .*loss')
    killed_worker(run)


def test_a_killed_rank_ends_the_others_in_time(tmp_path):
    both = ranks(tmp_path, 2, config(tmp_path, delay=0.02, env_cfg=dict(dist_cfg=dict(timeout=10))))
    both[0].wait_for(r'Epoch\(train\) +\[1\]\[1/2\]')
    begun = time.monotonic()
    both[1].send(signal.SIGKILL)
    assert both[0].code(WITHIN) == PROCESS_LOST, both[0].text()
    assert time.monotonic() - begun < 20
    assert re.search('ProcessLost: another rank is gone .*--resume goes on', both[0].text())


def test_a_rank_that_hangs_ends_the_others_at_the_timeout(tmp_path):
    both = ranks(tmp_path, 2, config(tmp_path, delay=0.02, env_cfg=dict(dist_cfg=dict(timeout=5))))
    both[0].wait_for(r'Epoch\(train\) +\[1\]\[1/2\]')
    both[1].send(signal.SIGSTOP)
    assert both[0].code(WITHIN) == PROCESS_LOST, both[0].text()
    both[1].send(signal.SIGKILL)
    assert both[1].code() == -signal.SIGKILL


@pytest.mark.faults
def test_torchrun_begins_again_by_itself(tmp_path):
    """A rank is killed in the second epoch; the run that torchrun restarts ends as one that nobody disturbed."""
    whole = ranks(tmp_path, 2, config(tmp_path, 'whole'))
    assert [run.code() for run in whole] == [0, 0]
    path, log = config(tmp_path, delay=0.02), tmp_path / 'out'
    env = dict(os.environ, OMP_NUM_THREADS='1', MAX_RESTARTS='1', PYTHONPATH=str(ROOT),
               PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]))
    with open(log, 'w') as out:
        launcher = subprocess.Popen([ROOT / 'tools/dist_train.sh', path, '2'], stdout=out, stderr=out, env=env)
        while not re.search(r'Epoch\(train\) +\[2\]\[1/2\]', log.read_text()):
            assert launcher.poll() is None, log.read_text()
            time.sleep(0.05)
        children = Path(f'/proc/{launcher.pid}/task/{launcher.pid}/children').read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert launcher.wait(120) == 0, log.read_text()
    assert re.search(r'goes on from \S+epoch_1.pth', log.read_text())
    assert same(weights(tmp_path / 'incub'), weights(tmp_path / 'whole'))


def test_loggers_that_fail_are_named_once_and_stop_nothing(tmp_path):
    (tmp_path / 'full.json').symlink_to('/dev/full')  # a disk with no space left
    path = config(tmp_path, delay=0., visualizer=dict(vis_backends=[
        dict(type='LocalVisBackend', scalar_save_file=str(tmp_path / 'full.json')),
        dict(type='tests.recovery.test_lost_processes.Unreachable')]))
    run = Run(tmp_path / 'out', 'train', path)
    assert run.code() == 0, run.text()
    assert len(re.findall(r'LocalVisBackend fails \(OSError: .*No space left', run.text())) == 1
    assert len(re.findall(r'Unreachable fails \(ConnectionError: no route to tracker.example\)', run.text())) == 1
    assert (tmp_path / 'incub/result.json').exists()


def test_a_logger_that_works_records_as_before(tmp_path):
    path = config(tmp_path, delay=0., visualizer=dict(vis_backends=[dict(type='LocalVisBackend')]))
    run = Run(tmp_path / 'out', 'train', path)
    assert run.code() == 0, run.text()
    lines = next(tmp_path.rglob('scalars.json')).read_text().splitlines()
    assert sum('"loss"' in line for line in lines) == 24


def test_a_logger_that_is_not_installed_is_a_wrong_config(tmp_path):
    path = config(tmp_path, visualizer=dict(vis_backends=[dict(type='AimVisBackend')]))
    run = Run(tmp_path / 'out', 'train', path)
    assert run.code() == 2 and "'AimVisBackend' needs the package 'aim'" in run.text()
