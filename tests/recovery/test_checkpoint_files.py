"""Checkpoints on disk: written whole or not at all, verified, found again, and never none."""
import os
import random
import re
import subprocess
import time
from pathlib import Path

import pytest
import torch

from mmincubation.checkpoints import CheckpointError, read_tensors, sha256_of, write_tensors
from mmincubation.recovery.checkpoint_files import (
    checkpoints_of,
    damage,
    digest_file,
    newest_complete,
    point_to,
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
    (lambda p: p.write_bytes(b''), 'is empty .0 bytes'), (truncate, 'truncated'),
    (flip, 'SHA-256 in epoch_2.pth.sha256'), (lambda p: p.unlink(), 'does not exist'),
    (lambda p: p.write_bytes(os.urandom(5000)), 'no weight file .5,000 bytes')])
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
