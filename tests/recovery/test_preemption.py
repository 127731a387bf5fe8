"""Ctrl-C, SIGTERM and SIGUSR1: every rank stops at one step, and the same command goes on to the same weights."""
import multiprocessing
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from mmincubation.errors import INTERRUPTED, PREEMPTED, PROCESS_LOST
from mmincubation.recovery import preemption
from tests.helpers.forked import ROOT, Run, ranks
from tests.helpers.tools import Forked
from tests.helpers.toy import incubation_config, write_images


def config(folder: Path, name: str = 'incub', delay: float = 0.002, **changes) -> Path:
    """An incubation's config file, with every image taking `delay` seconds."""
    if not (folder / 'images').exists():
        write_images(folder / 'images')
    cfg = incubation_config(folder / 'images', folder / name, (2, 1, 2), log_level='INFO', **changes)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    slow = [dict(type='tests.helpers.forked.Slow', seconds=delay)]
    cfg.train_dataloader.dataset.pipeline = cfg.val_dataloader.dataset.pipeline = slow
    cfg.test_dataloader.dataset.pipeline = [dict(type='tests.helpers.forked.Slow', seconds=0.05)]
    cfg.dump(folder / f'{name}.py')
    return folder / f'{name}.py'


def weights(folder: Path) -> dict:
    return {path.name: load_file(path) for path in (folder / 'weights').glob('*_last.safetensors')}


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(
        a[k].keys() == b[k].keys() and all(torch.equal(a[k][n], b[k][n]) for n in a[k]) for k in a)


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.faults)


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that nobody stopped."""
    folder = tmp_path_factory.mktemp('whole')
    run = Run(folder / 'out', 'train', config(folder))
    assert run.code() == 0, run.text()
    return weights(folder / 'incub')


@pytest.mark.parametrize('number, where', [
    (signal.SIGTERM, 'rank 0 is listening'),
    slow(signal.SIGUSR1, r'Epoch\(train\) +\[1\]\[2/4\]'),
    (signal.SIGINT, r'Epoch\(train\) +\[2\]\[3/4\]'),
    (signal.SIGUSR1, r'\[meta\] Epoch\(val\) +\[1\]\[2/4\]'),
    slow(signal.SIGTERM, r'phase module_1: '),
    (signal.SIGUSR1, r'\[assembled\] Epoch\(val\) +\[\d\]\[1/4\]'),
    slow(signal.SIGTERM, r'Epoch\(train\) +\[6\]\[1/4\]')])
def test_the_same_command_goes_on_to_the_same_weights(whole, tmp_path, number, where):
    path = config(tmp_path)
    run = Run(tmp_path / 'out', 'train', path, '--resume')
    if 'listening' in where:  # while data and model are being built
        caught = 1 << (number - 1)
        status = Path(f'/proc/{run.pid}/status')
        while not int(re.search(r'SigCgt:\s+(\w+)', status.read_text())[1], 16) & caught:
            time.sleep(0.001)
    else:
        run.wait_for(where)
    run.send(number)
    stopped = (INTERRUPTED, 'Interrupted') if number == signal.SIGINT else (PREEMPTED, 'Preempted')
    assert run.code() == stopped[0], run.text()
    assert re.search(rf'{stopped[1]}: stopped .*To go on, exactly: python train {path} --resume\n', run.text())
    again = Run(tmp_path / 'again', 'train', path, '--resume')
    assert again.code() == 0, again.text()
    assert same(weights(tmp_path / 'incub'), whole)
    assert not list((tmp_path / 'incub').glob('iter_*'))


def test_a_stopped_validation_leaves_no_metric(tmp_path):
    run = Run(tmp_path / 'out', 'train', config(tmp_path, delay=0.02))
    run.wait_for(r'\[meta\] Epoch\(val\) +\[1\]\[1/4\]')
    run.send(signal.SIGTERM)
    assert run.code() == PREEMPTED
    assert 'in a validation after iteration 4' in run.text() and 'accuracy/top1' not in run.text()
    assert not (tmp_path / 'incub/weights/meta_best.safetensors').exists()


@pytest.mark.parametrize('which', [0, 1])
def test_all_ranks_stop_at_the_step_that_one_was_asked_at(tmp_path, which):
    both = ranks(tmp_path, 2, config(tmp_path, delay=0.02), '--resume')
    both[0].wait_for(r'Epoch\(train\) +\[1\]\[1/2\]')
    both[which].send(signal.SIGUSR1)
    assert [run.code() for run in both] == [PREEMPTED, PREEMPTED], both[0].text() + both[1].text()
    texts = both[0].text() + both[1].text()
    assert texts.count('Preempted: stopped ') == 1
    assert texts.count('SIGUSR1: rank 0 stops') == (which == 0)


@pytest.mark.parametrize('number, pause', [(signal.SIGTERM, 1.2), (signal.SIGINT, 0.3)])
def test_a_second_signal_ends_it_at_once(tmp_path, number, pause):
    run = Run(tmp_path / 'out', 'train', config(tmp_path, delay=1.))
    run.wait_for('phase meta: ')
    run.send(number)
    time.sleep(pause)
    begun = time.monotonic()
    run.send(number)
    assert run.code() == -number and time.monotonic() - begun < 1
    assert 'another ends it at once' in run.text() and 'Traceback' not in run.text()


def test_a_terminal_that_is_closed(tmp_path):
    """It hangs up, more than once, and takes no word any more: the run stops at a checkpoint all the same."""
    os.mkfifo(terminal := tmp_path / 'terminal')
    read = os.open(terminal, os.O_RDONLY | os.O_NONBLOCK)
    run = Forked(['python', 'tools/train.py', config(tmp_path, delay=0.02)], SimpleNamespace(name=str(terminal)))
    while not any('[1][1/4]' in log.read_text() for log in (tmp_path / 'incub').glob('*/*.log')):
        assert run.poll() is None
        time.sleep(0.01)
    os.close(read)
    for _ in range(2):
        run.send_signal(signal.SIGHUP)
        time.sleep(preemption.BOUNCE * 1.5)
    run.process.join(60)
    assert run.poll() == PREEMPTED and list((tmp_path / 'incub').glob('iter_*.pth'))


def test_what_was_started_to_outlive_its_terminal_does():
    """As by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with preemption.listening() as request:
            os.kill(os.getpid(), signal.SIGHUP)
            assert request.at is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_while_a_run_is_built_loses_nothing(tmp_path):
    run = Run(tmp_path / 'out', 'train', config(tmp_path))
    status = Path(f'/proc/{run.pid}/status')
    while not int(re.search(r'SigCgt:\s+(\w+)', status.read_text())[1], 16) & 1 << (signal.SIGTERM - 1):
        time.sleep(0.001)
    run.send(signal.SIGINT)
    assert run.code() == INTERRUPTED, run.text()
    assert run.text().endswith('Interrupted: stopped by Ctrl-C, nothing is lost\n')
    assert 'Traceback' not in run.text()


@pytest.mark.parametrize('given, command', [
    ('tools/train.py c.py', 'python tools/train.py c.py --resume'),
    ('tools/train.py --resume --amp c.py', 'python tools/train.py --amp c.py --resume'),
    ('tools/train.py c.py --resume work/epoch_1.pth --amp', 'python tools/train.py c.py --amp --resume'),
    ('tools/train.py c.py --resume=work/epoch_1.pth', 'python tools/train.py c.py --resume'),
    ("tools/train.py 'my config.py' --cfg-options \"a=['x y']\"",
     "python tools/train.py 'my config.py' --cfg-options 'a=['\"'\"'x y'\"'\"']' --resume")])
def test_the_command_that_goes_on(monkeypatch, given, command):
    monkeypatch.setattr(sys, 'argv', shlex.split(given))
    assert preemption.resuming_command() == command
    monkeypatch.setenv(preemption.COMMAND, 'tools/dist_train.sh c.py 4 ')
    assert preemption.resuming_command() == 'tools/dist_train.sh c.py 4 --resume'


@pytest.mark.parametrize('persistent, number', [(False, signal.SIGTERM), (True, signal.SIGINT)])
def test_workers_ignore_a_signal_to_the_whole_process_group(tmp_path, persistent, number):
    loader = dict(num_workers=2, persistent_workers=persistent)
    path = config(tmp_path, delay=0.05, train_dataloader=loader, val_dataloader=loader)
    run = Run(tmp_path / 'out', 'train', path)
    run.wait_for(r'Epoch\(train\) +\[1\]\[1/4\]')
    run.send(number, group=True)
    assert run.code() == (INTERRUPTED if number == signal.SIGINT else PREEMPTED), run.text()
    assert 'DataLoader worker' not in run.text() and 'Traceback' not in run.text()


@pytest.mark.parametrize('number, ended', [(signal.SIGTERM, True), (signal.SIGUSR1, False), (signal.SIGINT, False)])
def test_what_a_metric_forks_ends_by_the_signal_of_its_pool_alone(number, ended):
    with preemption.listening() as request:
        request.building = False
        fork = multiprocessing.get_context('fork')
        worker = fork.Process(target=_say_and_wait, args=(ready := fork.Event(), ))
        worker.start()
        assert ready.wait(60)  # Python forgets a signal that comes while it forks
        os.kill(worker.pid, number)
        worker.join(10 if ended else 1)
        code = worker.exitcode
        worker.kill()
        assert code == (-number if ended else None) and request.at is None


def _say_and_wait(ready) -> None:
    ready.set()
    time.sleep(60)


def test_an_evaluation_stops_after_its_batch(tmp_path):
    path = config(tmp_path)
    trained = Run(tmp_path / 'trained', 'train', path)
    assert trained.code() == 0, trained.text()
    run = Run(tmp_path / 'out', 'test', path, tmp_path / 'incub/weights/finetune_last.safetensors')
    run.wait_for(r'Epoch\(test\) +\[1/4\]')
    run.send(signal.SIGINT)
    assert run.code() == INTERRUPTED
    assert 'no metric was computed' in run.text() and 'accuracy/top1' not in run.text()


@pytest.mark.faults
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_torchrun_passes_the_signal_on_and_the_exit_code_back(tmp_path, number):
    path = config(tmp_path, delay=0.02)
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT),
               PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ['PATH']]))
    with open(tmp_path / 'out', 'w') as out:
        command = [ROOT / 'tools/dist_train.sh', path, '2', '--resume']
        launcher = subprocess.Popen(command, stdout=out, stderr=out, env=env,
                                    preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
        while not re.search(r'Epoch\(train\) +\[1\]\[1/2\]', (tmp_path / 'out').read_text()):
            assert launcher.poll() is None, (tmp_path / 'out').read_text()
            time.sleep(0.1)
        launcher.send_signal(number)
        code = INTERRUPTED if number == signal.SIGINT else PREEMPTED
        assert launcher.wait(60) == code, (tmp_path / 'out').read_text()
    said = (tmp_path / 'out').read_text()
    assert len(re.findall(r'(Preempted|Interrupted): stopped .*dist_train.sh .*incub.py 2 --resume', said)) == 1
    assert 'Traceback' not in said and 'closing signal' not in said


FAKES = dict(
    sbatch='echo "sbatch $*" >> $CALLS; while [ "$1" != "${1#--}" ]; do shift; done; cp "$1" $SPOOL; shift;'
           ' SLURM_JOB_ID=77 exec $SPOOL "$@"',
    srun='echo "srun $*" >> $CALLS; echo "$MASTER_PORT" > $PORT_FILE; exit $(cat $RETURNS)',
    scontrol='echo "scontrol $*" >> $CALLS')


def slurm(folder: Path, code: int, *args, **env) -> tuple[int, list[str]]:
    """tools/slurm_train.sh between stand-ins for Slurm's commands that write down their arguments; a job runs a copy of
    its script, as Slurm's do. `code` is what srun returns. Returns the exit code and the calls."""
    for name, line in FAKES.items():
        (folder / name).write_text(f'#!/usr/bin/env bash\n{line}\n')
        (folder / name).chmod(0o755)
    (folder / 'returns').write_text(str(code))
    paths = dict(CALLS=folder / 'calls', RETURNS=folder / 'returns', SPOOL=folder / 'slurm_script',
                 PORT_FILE=folder / 'port')
    done = subprocess.run(
        [ROOT / 'tools/slurm_train.sh', *args], capture_output=True, text=True, cwd=folder,
        env=dict(os.environ, PATH=f'{folder}:{os.environ["PATH"]}', **{k: str(v) for k, v in paths.items()}, **env))
    return done.returncode, (folder / 'calls').read_text().splitlines() if (folder / 'calls').exists() else []


@pytest.mark.parametrize('code, env, requeued', [
    (0, {}, False), (1, {}, False), (70, {}, False), (PREEMPTED, {}, True), (PROCESS_LOST, {}, False),
    (PROCESS_LOST, dict(MAX_RESTARTS='2', SLURM_RESTART_COUNT='1'), True),
    (PROCESS_LOST, dict(MAX_RESTARTS='2', SLURM_RESTART_COUNT='2'), False),
    (PREEMPTED, dict(SLURM_RESTART_COUNT='9'), True), (137, {}, False), (137, dict(MAX_RESTARTS='1'), True),
    (134, dict(MAX_RESTARTS='1'), True), (137, dict(MAX_RESTARTS='1', SLURM_RESTART_COUNT='1'), False),
    (130, dict(MAX_RESTARTS='1'), False), (70, dict(MAX_RESTARTS='1'), False), (2, dict(MAX_RESTARTS='1'), False)])
def test_slurm_requeues_what_was_preempted_and_nothing_else(tmp_path, code, env, requeued):
    returned, calls = slurm(
        tmp_path, code, 'gpu', 'my_job', 'c.py', '--amp', GPUS='16', SRUN_ARGS='--time=1:00:00 --exclude=n1', **env)
    assert returned == code
    assert [call.split()[0] for call in calls] == ['sbatch', 'srun'] + ['scontrol'] * requeued
    assert '--requeue --signal=USR1@120 ' in calls[0]
    for call in calls[:2]:
        assert '--partition=gpu --job-name=my_job --ntasks=16 --ntasks-per-node=8 --gres=gpu:8' in call
        assert '--time=1:00:00 --exclude=n1' in call
    assert calls[1].endswith(f'python -u {ROOT}/tools/train.py c.py --launcher slurm --resume --amp')
    assert not requeued or calls[2] == 'scontrol requeue 77'
    assert (tmp_path / 'port').read_text() == '20077\n'  # the job's own: two jobs may share a machine


def test_slurm_script_tells_its_usage(tmp_path):
    assert slurm(tmp_path, 0, 'gpu', 'my_job') == (2, [])
