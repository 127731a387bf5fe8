"""A work dir belongs to one run: live owners are respected, dead ones are not, whichever way they died."""
import errno
import fcntl
import json
import os
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmincubation.errors import ConfigError
from mmincubation.recovery import lock as workdir
from mmincubation.recovery.lock import LOCK, lock
from tests.helpers.forked import Run
from tests.helpers.toy import e2e_config, write_images


@contextmanager
def another(body):
    """A process that runs `body`, says so through a pipe, and waits to be killed; yields its pid."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with body():
                os.write(write, b'1')
                time.sleep(60)
        finally:
            os._exit(1)
    os.close(write)
    try:
        assert os.read(read, 1) == b'1'
        yield pid
    finally:
        os.close(read)
        kill(pid)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(workdir, 'print_log', lambda text, logger: lines.append(text))
    return lines


def test_the_second_run_is_refused_in_one_line_and_the_third_goes_on(tmp_path, said):
    with another(lambda: lock(tmp_path)) as pid:
        with pytest.raises(ConfigError) as refusal, lock(tmp_path):
            pass
        line = str(refusal.value)
        assert f'pid {pid} on ' in line and f'kill {pid}' in line and '--work-dir' in line and '\n' not in line
        assert json.loads((tmp_path / LOCK).read_text())['pid'] == pid  # the refused one has not written
        kill(pid)
        with lock(tmp_path):
            assert len(said) == 1 and f'taken over from pid {pid}' in said[0]
            assert json.loads((tmp_path / LOCK).read_text())['pid'] == os.getpid()
    with lock(tmp_path):
        pass
    assert len(said) == 1  # a run that has ended is no owner


def test_within_one_process_too(tmp_path):
    with lock(tmp_path), pytest.raises(ConfigError, match=f'pid {os.getpid()}'), lock(tmp_path):
        pass


def test_a_worker_that_outlives_its_killed_run_does_not_hold_the_lock(tmp_path, said):
    read, write = os.pipe()

    @contextmanager
    def with_worker():
        with lock(tmp_path):
            worker = os.fork()
            if worker == 0:
                time.sleep(60)
                os._exit(0)
            os.write(write, worker.to_bytes(4, 'little'))
            yield

    with another(with_worker) as pid:
        worker = int.from_bytes(os.read(read, 4), 'little')
        try:
            with pytest.raises(ConfigError), lock(tmp_path):  # the worker's end of it has not unlocked
                pass
            kill(pid)
            os.kill(worker, 0)  # it lives
            with lock(tmp_path):
                assert said
        finally:
            os.kill(worker, signal.SIGKILL)


def test_phases_of_one_incubation_run_at_once_but_not_beside_the_whole(tmp_path):
    with another(lambda: lock(tmp_path / 'module_0', tmp_path)) as pid:
        with lock(tmp_path / 'module_1', tmp_path):
            pass
        with pytest.raises(ConfigError, match=f'module_0 is in use: pid {pid}'), lock(tmp_path / 'module_0', tmp_path):
            pass
        with pytest.raises(ConfigError, match='a run of one of its phases'), lock(tmp_path):
            pass
    with another(lambda: lock(tmp_path)) as pid:
        with pytest.raises(ConfigError, match=f'{tmp_path} is in use: pid {pid}'):
            with lock(tmp_path / 'module_1', tmp_path):
                pass
    with lock(tmp_path):
        pass


def owner(**changes) -> str:
    return json.dumps(workdir._myself() | changes)


@pytest.fixture
def without_flock(monkeypatch):
    def flock(descriptor, kind):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', flock)


def test_without_flock_a_live_owner_is_refused(tmp_path, without_flock):
    pid = os.getppid()
    (tmp_path / LOCK).write_text(owner(pid=pid, start=workdir._start_of(pid)))
    with pytest.raises(ConfigError, match=f'pid {pid} on .*kill {pid}'), lock(tmp_path):
        pass


def test_without_flock_a_reused_pid_is_another_process(tmp_path, without_flock, said):
    pid = os.getppid()
    (tmp_path / LOCK).write_text(owner(pid=pid, start=workdir._start_of(pid) - 1))
    with lock(tmp_path):
        assert 'taken over' in said[0]


def test_without_flock_another_machine_is_refused_with_the_file_to_delete(tmp_path, without_flock):
    (tmp_path / LOCK).write_text(owner(host='node7', machine='node7 other boot'))
    with pytest.raises(ConfigError, match=f'node7.*delete {tmp_path / LOCK}'), lock(tmp_path):
        pass
    (tmp_path / LOCK).unlink()
    with lock(tmp_path):
        pass


def test_a_free_lock_of_another_machine_is_taken_over(tmp_path, said):
    """A job that was killed with its node goes on elsewhere by itself."""
    (tmp_path / LOCK).write_text(owner(host='node7', machine='node7 other boot'))
    with lock(tmp_path):
        assert 'taken over from pid' in said[0] and 'node7' in said[0]


def test_a_copy_of_a_living_runs_folder_is_nobodys(tmp_path, said):
    pid = os.getppid()
    (tmp_path / LOCK).write_text(owner(pid=pid, start=workdir._start_of(pid)))
    with lock(tmp_path):
        assert not said


@pytest.mark.parametrize('text', ['', '{', '[1]', '{"pid": "x"}', '[' * 4096, '{"pid": 1, "start": null}'])
def test_half_a_lock_file_is_no_owner(tmp_path, text, said):
    (tmp_path / LOCK).write_text(text)
    with lock(tmp_path):
        assert not said


def test_a_lock_file_cannot_steer_a_terminal(tmp_path, without_flock):
    (tmp_path / LOCK).write_text(owner(host='\x1b[2Jnode7\n', machine='other'))
    with pytest.raises(ConfigError) as refusal, lock(tmp_path):
        pass
    assert str(refusal.value).isprintable()


def test_a_zombie_is_dead():
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    deadline = time.monotonic() + 10
    while workdir._start_of(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert Path(f'/proc/{pid}').exists() and workdir._start_of(pid) == 0
    os.waitpid(pid, 0)
    assert workdir._start_of(pid) == 0 and workdir._start_of(os.getpid()) > 0


def test_a_killed_training_is_taken_over_and_a_live_one_is_not(tmp_path):
    write_images(tmp_path / 'images')
    e2e_config(tmp_path / 'images', tmp_path / 'run', epochs=100_000).dump(tmp_path / 'run.py')
    first = Run(tmp_path / 'first.log', 'train', tmp_path / 'run.py', '--resume')
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / 'run/last_checkpoint').exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        second = Run(tmp_path / 'second.log', 'train', tmp_path / 'run.py', '--resume')
        assert second.code(120) == 2
        assert f'is in use: pid {first.pid}' in second.text()
        assert first.process.is_alive()
    finally:
        first.send(signal.SIGKILL)
        first.code()
    third = Run(tmp_path / 'third.log', 'train', tmp_path / 'run.py', '--resume')
    try:
        deadline = time.monotonic() + 120
        while f'taken over from pid {first.pid}' not in third.text():
            assert third.process.is_alive() and time.monotonic() < deadline, third.text()
            time.sleep(0.01)
    finally:
        third.send(signal.SIGKILL)
        third.code()
    assert f'taken over from pid {first.pid}' in third.text()
