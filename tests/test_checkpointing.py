"""Checkpoints on disk: written whole or not at all, verified, found again, and never none."""
import multiprocessing
import os
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmincubation.atomic import STRAY, remove_strays, replacing, write_atomic
from mmincubation.checkpoints import CheckpointError, read_tensors, sha256_of, write_tensors
from mmincubation.checkpoints.files import nbytes
from mmincubation.engine import checkpointing
from mmincubation.engine.checkpointing import (
    checkpoints_of,
    damage,
    digest_file,
    newest_complete,
    point_to,
    remove_checkpoint,
    stream,
    write_checkpoint,
)


def content(value: float = 0., size: int = 1000) -> dict:
    return dict(meta=dict(epoch=1), state_dict=dict(weight=torch.full((size,), value)), note='text')


def write_run(folder: Path, *epochs: int) -> list[Path]:
    """A work dir with a checkpoint of each epoch; returns their paths, newest first."""
    paths = [folder / f'epoch_{epoch}.pth' for epoch in epochs]
    for epoch, path in zip(epochs, paths, strict=True):
        write_checkpoint(path, content(float(epoch)))
        point_to(folder, path)
    return paths[::-1]


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_a_checkpoint_is_read_back_and_matches_its_digest(tmp_path):
    path = tmp_path / 'new/epoch_1.pth'
    write_checkpoint(path, content(3.))
    assert read_tensors(path)[0]['state_dict']['weight'].eq(3).all() and damage(path) is None
    assert digest_file(path).read_text() == f'{sha256_of(path)}  epoch_1.pth\n'
    subprocess.run(['sha256sum', '--check', '--quiet', 'epoch_1.pth.sha256'], cwd=path.parent, check=True)
    assert sorted(os.listdir(path.parent)) == ['epoch_1.pth', 'epoch_1.pth.sha256']


def test_tensors_are_filed_as_of_the_cpu_only_while_a_checkpoint_is_written(tmp_path):
    """There is no GPU here: what torch.save would ask for a tensor of a GPU is asked directly."""
    tags = []

    class Watched(dict):
        def __reduce__(self):
            tags.append(torch.serialization._package_registry[0][1](None))
            return dict, ()

    with open(os.devnull, 'wb') as file:
        stream(dict(a=Watched()), file)
    assert tags == ['cpu'] and torch.serialization._package_registry[0][1](None) is None


def test_memory_of_a_save(tmp_path):
    """300 MiB of state cost less than 60 MiB more."""
    state = {f'p{i}': torch.ones(25 * 2**18) for i in range(12)}
    Path('/proc/self/clear_refs').write_text('5')  # the peak begins anew
    before = peak_mib()
    write_checkpoint(tmp_path / 'a.pth', dict(state_dict=state, optimizer=dict(state=dict(enumerate(state.values())))))
    assert peak_mib() - before < 60
    assert (tmp_path / 'a.pth').stat().st_size > 300 * 2**20


def peak_mib() -> float:
    return int(re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) / 1024


@pytest.mark.parametrize('harm, named', [
    (lambda p: p.write_bytes(b''), 'truncated or no checkpoint .0 bytes'), (truncate, 'truncated'),
    (flip, 'SHA-256 in epoch_2.pth.sha256'), (lambda p: p.unlink(), 'does not exist'),
    (lambda p: p.write_bytes(os.urandom(5000)), 'no checkpoint .5,000 bytes')])
@pytest.mark.parametrize('sealed', [True, False])
def test_resume_takes_the_one_before_a_damaged_one_and_names_it(tmp_path, harm, named, sealed):
    newest, before = write_run(tmp_path, 1, 2)
    for path in (newest, before) if not sealed else ():
        digest_file(path).unlink()
    harm(newest)
    found, warnings = newest_complete(tmp_path)
    assert found == before and len(warnings) == 1
    assert f'{newest} ' in warnings[0] and f'goes on from {before}' in warnings[0]
    if sealed or harm is not flip:
        assert re.search(named, warnings[0])


def test_every_flipped_bit_of_a_tensor_is_seen_without_a_digest(tmp_path):
    path, = write_run(tmp_path, 1)
    digest_file(path).unlink()
    whole = path.read_bytes()
    start = whole.index(torch.full((1000,), 1.).numpy().tobytes())
    for at in random.Random(0).sample(range(start, start + 4000), 20):
        flip(path, (at + 0.5) / len(whole))
        assert 'is damaged' in damage(path)
        path.write_bytes(whole)
    assert damage(path) is None


def test_a_damaged_digest_file_is_no_digest(tmp_path):
    path, = write_run(tmp_path, 1)
    for text in ('', 'no digest\n', '0' * 63):
        digest_file(path).write_text(text)
        assert damage(path) is None
    digest_file(path).write_text('0' * 64 + '  epoch_1.pth\n')
    assert 'SHA-256' in damage(path)


def test_nothing_whole_is_an_error_that_changes_nothing(tmp_path):
    paths = write_run(tmp_path, 1, 2)
    for path in paths:
        truncate(path)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match='epoch_2.pth is truncated.*epoch_1.pth is truncated.*--work-dir'):
        newest_complete(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_no_checkpoint_is_no_error(tmp_path):
    assert newest_complete(tmp_path) == newest_complete(tmp_path / 'none') == (None, [])
    write_checkpoint(tmp_path / 'best_top1_epoch_3.pth', content())  # has no optimiser
    write_tensors(tmp_path / 'epoch_3.safetensors', content()['state_dict'], {})
    assert newest_complete(tmp_path) == (None, [])


def names(folder: Path) -> list[str]:
    return [path.name for path in checkpoints_of(folder)]


def test_order_of_checkpoints(tmp_path):
    write_run(tmp_path, 9, 10, 11)
    assert names(tmp_path) == ['epoch_11.pth', 'epoch_10.pth', 'epoch_9.pth']
    for name in ('epoch_9.pth', 'epoch_10.pth'):  # a copy of a work dir has times of its own
        os.utime(tmp_path / name)
    assert names(tmp_path) == ['epoch_11.pth', 'epoch_10.pth', 'epoch_9.pth']
    time.sleep(0.01)
    write_checkpoint(tmp_path / 'epoch_12.pth', content())  # killed before it could be named
    assert names(tmp_path)[:2] == ['epoch_12.pth', 'epoch_11.pth']


def test_files_of_an_earlier_run_are_not_newer(tmp_path):
    write_run(tmp_path, 99, 100)
    time.sleep(0.01)
    write_run(tmp_path, 1)
    assert names(tmp_path) == ['epoch_1.pth']


def test_last_checkpoint_is_lost_wrong_or_elsewhere(tmp_path):
    run, moved = tmp_path / 'run', tmp_path / 'moved'
    write_run(run, 1, 2)
    for text in (b'', b'\0\xff', b'epoch_7.pth', str(run / 'epoch_7.pth').encode()):
        (run / 'last_checkpoint').write_bytes(text)
        assert newest_complete(run)[0] == run / 'epoch_2.pth', text
    (run / 'last_checkpoint').unlink()
    assert newest_complete(run) == (run / 'epoch_2.pth', [])
    point_to(run, run / 'epoch_2.pth')
    run.rename(moved)
    assert newest_complete(moved) == (moved / 'epoch_2.pth', [])


def test_a_checkpoint_of_another_folder_and_name(tmp_path):
    """out_dir and filename_tmpl of the hook."""
    for step in (5, 6):
        write_checkpoint(tmp_path / f'out/run/s{step}.pt', content())
    point_to(tmp_path / 'run', tmp_path / 'out/run/s6.pt')
    truncate(tmp_path / 'out/run/s6.pt')
    assert newest_complete(tmp_path / 'run')[0] == tmp_path / 'out/run/s5.pt'


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
