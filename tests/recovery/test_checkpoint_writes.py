"""Writing checkpoints while the disk fills and the writer is killed: the one before is never lost."""
import multiprocessing
import os
import random
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmincubation.atomic import STRAY, remove_strays, replacing, write_atomic
from mmincubation.checkpoints import CheckpointError, write_tensors
from mmincubation.checkpoints.files import nbytes
from mmincubation.recovery import checkpoint_files as checkpointing
from mmincubation.recovery.checkpoint_files import (
    damage,
    newest_complete,
    point_to,
    remove_checkpoint,
    write_checkpoint,
)
from tests.recovery.test_checkpoint_files import content, write_run


class FullDisk:
    """A file that takes some bytes and then has no space left."""

    def __init__(self, file, room: int):
        self.file, self.room = file, room

    def write(self, data):
        self.room -= len(data)
        if self.room < 0:
            raise OSError(28, 'No space left on device')
        return self.file.write(data)

    def flush(self):
        self.file.flush()


@pytest.mark.parametrize('room', [0, 10, 1000, 300_000, 401_000])
def test_the_disk_fills_while_a_checkpoint_is_written(tmp_path, monkeypatch, room):
    path, = write_run(tmp_path, 1)
    whole, hashing = path.read_bytes(), checkpointing._Hashing
    monkeypatch.setattr(checkpointing, '_Hashing', lambda file: hashing(FullDisk(file, room)))
    with pytest.raises(CheckpointError, match=r'epoch_1.pth: cannot be written \(No space left.*needs 40\d,\d\d\d'):
        write_checkpoint(path, content(size=100_000))
    assert path.read_bytes() == whole and damage(path) is None
    assert sorted(os.listdir(tmp_path)) == ['epoch_1.pth', 'epoch_1.pth.sha256', 'last_checkpoint']


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 1 MiB."""
    disk = tmp_path / 'disk'
    disk.mkdir()
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f'mounting a small disk needs root: {mount.stderr.strip()}')
    yield disk
    subprocess.run(['umount', disk], check=True)


def test_a_disk_that_is_full(small_disk, monkeypatch):
    path, = write_run(small_disk, 1)
    write_tensors(small_disk / 'a.safetensors', dict(a=torch.ones(3)), {})
    before = {p.name: p.read_bytes() for p in small_disk.iterdir()}
    large = content(size=500_000)
    for free in ('as it is', 'as if there were enough'):
        if free == 'as if there were enough':  # it fills up while we write
            monkeypatch.setattr('shutil.disk_usage', lambda path: Free)
        with pytest.raises(CheckpointError, match=r'epoch_2.pth: cannot be written.*needs 2,000,\d\d\d bytes'):
            write_checkpoint(small_disk / 'epoch_2.pth', large)
        with pytest.raises(CheckpointError, match='a.safetensors: cannot be written.*needs 2,000,000 bytes'):
            write_tensors(small_disk / 'a.safetensors', large['state_dict'], {})
        assert {p.name: p.read_bytes() for p in small_disk.iterdir()} == before
    assert newest_complete(small_disk) == (path, [])


class Free:
    free = 2**40


def test_size_is_known_before_writing(tmp_path):
    base = torch.zeros(10_000)
    shared = dict(a=base, b=base[5:], c=[base.view(100, 100)], d=(torch.zeros(3, dtype=torch.float64),))
    assert nbytes(shared) == 40_000 + 24 + len('abcd')
    for state in (content(size=50_000), dict(optimizer=dict(state={0: dict(m=torch.ones(70, 70), v=torch.ones(9))}))):
        write_checkpoint(tmp_path / 'a.pth', state)
        size = (tmp_path / 'a.pth').stat().st_size
        assert size - 5000 < nbytes(state) <= size


def write_for_ever(folder: Path, first: int, ready) -> None:
    """Keep one checkpoint, on a disk that is slow."""
    hashing = checkpointing._Hashing
    hashing.write_fast = hashing.write
    hashing.write = lambda self, data: (time.sleep(0.001), self.write_fast(data))[1]
    state = {f'p{i}': torch.full((20_000,), float(i)) for i in range(10)}
    ready.set()
    for step in range(first, first + 100_000):
        path = folder / f'iter_{step}.pth'
        write_checkpoint(path, dict(state_dict=state))
        point_to(folder, path)
        remove_checkpoint(folder / f'iter_{step - 1}.pth')


def test_twenty_kills_at_random_moments_of_writing(tmp_path):
    """A writer that does nothing but write; meanwhile the folder is watched from outside, never is it empty."""
    rng, processes, last, torn = random.Random(7), multiprocessing.get_context('fork'), 0, 0
    write_checkpoint(tmp_path / 'iter_0.pth', dict(state_dict=dict(p9=torch.full((1,), 9.))))
    for _ in range(20):
        ready = processes.Event()
        writer = processes.Process(target=write_for_ever, args=(tmp_path, last + 1, ready))
        writer.start()
        assert ready.wait(60)
        end = time.monotonic() + rng.uniform(0.1, 0.3)
        while time.monotonic() < end:
            # A listing may miss a file that is renamed meanwhile and one that is removed then; three do not.
            assert any(list(tmp_path.glob('iter_*.pth')) for _ in range(3))
        writer.kill()
        writer.join()
        torn += len(list(tmp_path.glob('.iter_*.tmp')))
        found, warnings = newest_complete(tmp_path)
        assert found and not warnings
        assert all(damage(path) is None for path in tmp_path.glob('iter_*.pth'))
        step = int(found.stem.removeprefix('iter_'))
        assert step >= last and torch.load(found)['state_dict']['p9'].eq(9).all()
        last = step
        remove_strays(tmp_path)
        assert not list(tmp_path.glob('.*.tmp'))
    assert torn > 5  # kills inside a write, not between two


def test_whose_temporary_files_are_removed(tmp_path):
    host = this_host(tmp_path)
    dead = subprocess.Popen(['true'])
    dead.wait()
    alive, gone, other, old = (tmp_path / f'.a.pth.{name}.tmp' for name in (
        f'{host}-{os.getppid()}', f'{host}-{dead.pid}', 'elsewhere-1', 'elsewhere-2'))
    users = tmp_path / '.mine.tmp'
    for path in (alive, gone, other, old, users):
        path.touch()
    os.utime(old, (0, 0))
    assert set(remove_strays(tmp_path, shared=True)) == {gone, old}
    assert set(remove_strays(tmp_path)) == {alive, other}
    assert list(tmp_path.iterdir()) == [users] and remove_strays(tmp_path / 'none') == []


def this_host(folder: Path) -> str:
    """What a writer here puts into the names of its temporary files."""
    with replacing(folder / 'x') as tmp:
        name = STRAY.fullmatch(tmp.name)
    (folder / 'x').unlink()
    assert int(name['pid']) == os.getpid()
    return name['host']


@pytest.mark.parametrize('write', [
    lambda p: write_atomic(p, b'x'), lambda p: write_tensors(p, dict(a=torch.ones(2)), {}),
    lambda p: write_checkpoint(p, content())], ids=['bytes', 'weights', 'checkpoint'])
def test_bytes_then_name_then_folder_reach_the_disk(tmp_path, monkeypatch, write):
    """The order of system calls that survives a power cut."""
    path, calls = tmp_path / 'a.safetensors', []
    sync, replace = os.fsync, os.replace

    def fsync(handle):
        calls.append('folder' if os.path.isdir(f'/proc/self/fd/{handle}') else 'bytes')
        sync(handle)

    def renamed(source, target):
        calls.append('name')
        replace(source, target)

    monkeypatch.setattr('os.fsync', fsync)
    monkeypatch.setattr('os.replace', renamed)
    write(path)
    assert calls[:3] == ['bytes', 'name', 'folder'] and calls == calls[:3] * (len(calls) // 3)
