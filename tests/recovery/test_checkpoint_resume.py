"""tools/train.py --resume among damaged checkpoints and on a full disk."""
import subprocess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmincubation.engine import launch
from mmincubation.recovery.checkpoint_files import damage
from tests.helpers.toy import arguments, e2e_config, incubation_config
from tests.recovery.test_checkpoint_hook import build, checkpoints, config


def train(path: Path, work_dir: Path, resume='auto', *options) -> int:
    """tools/train.py in this process."""
    build.runs += 1
    name = f'experiment_name=tool{build.runs}'
    return launch.train(arguments(path, name, *options, work_dir=str(work_dir), resume=resume))


@pytest.fixture(scope='module')
def whole(images, tmp_path_factory):
    """An incubation through the tool that keeps all its checkpoints, and its config."""
    folder = tmp_path_factory.mktemp('whole')
    cfg = incubation_config(images, folder / 'run', start='grow')
    cfg.dump(folder / 'toy.py')
    assert train(folder / 'toy.py', folder / 'run') == 0  # nothing to resume: from scratch
    return folder


def copied(whole: Path, folder: Path, *names: str) -> Path:
    for name in names:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((whole / 'run' / name).read_bytes())
    (folder / 'last_checkpoint').write_text(str(folder / names[-1]))
    return folder


def test_the_tool_falls_back_and_ends_in_the_same_weights(whole, tmp_path, capfd):
    folder = copied(whole, tmp_path, 'epoch_2.pth', 'epoch_2.pth.sha256', 'epoch_3.pth.sha256', 'epoch_3.pth')
    (folder / 'epoch_3.pth').write_bytes((folder / 'epoch_3.pth').read_bytes()[:-1000])
    (folder / '.epoch_3.pth.host-1.tmp').write_text('of a killed writer')
    assert train(whole / 'toy.py', folder) == 0
    said = ''.join(capfd.readouterr())
    assert 'epoch_3.pth is truncated' in said and 'epoch_2.pth' in said
    ours, theirs = (load_file(f / 'weights/finetune_last.safetensors') for f in (folder, whole / 'run'))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert not list(folder.glob('.*.tmp')) and damage(folder / 'epoch_3.pth') is None


def test_the_tool_refuses_when_none_is_whole(whole, tmp_path, capfd):
    folder = copied(whole, tmp_path, 'epoch_2.pth', 'epoch_3.pth')
    for name in ('epoch_2.pth', 'epoch_3.pth'):
        (folder / name).write_bytes((folder / name).read_bytes()[:2000])
    before = {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()}
    assert train(whole / 'toy.py', folder) == 2
    said = capfd.readouterr().err
    assert 'epoch_2.pth is truncated' in said and 'epoch_3.pth is truncated' in said
    assert train(whole / 'toy.py', tmp_path / 'new', str(folder / 'epoch_3.pth')) == 2
    assert f'{folder}/epoch_3.pth is truncated' in capfd.readouterr().err
    assert {p: p.read_bytes() for p in folder.rglob('*') if p.is_file()} == before and not (tmp_path / 'new').exists()


def test_weights_to_start_from_are_kept_where_nothing_is_to_be_resumed(images, tmp_path, capfd):
    """The same command, with --resume, starts a run and continues it."""
    cfg = e2e_config(images, tmp_path, 1, log_level='INFO')
    build(config(images, tmp_path / 'first', 1)).train()
    cfg.load_from = str(tmp_path / 'first/epoch_1.pth')
    cfg.dump(tmp_path / 'toy.py')
    assert train(tmp_path / 'toy.py', tmp_path / 'run') == 0
    assert f'weights: load_from {cfg.load_from}' in ''.join(capfd.readouterr())


def test_a_full_disk_stops_the_tool_with_the_last_checkpoint_intact(whole, tmp_path, capfd):
    disk = tmp_path / 'disk'
    disk.mkdir()
    size = (whole / 'run/epoch_1.pth').stat().st_size
    mount = subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={int(size * 1.8)}', 'tmpfs', disk],
                           capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f'mounting a small disk needs root: {mount.stderr.strip()}')
    try:
        assert train(whole / 'toy.py', disk / 'run') == 2
        said = capfd.readouterr().err
        assert f'{disk}/run/epoch_2.pth: cannot be written' in said and 'bytes' in said
        assert checkpoints(disk / 'run') == ['epoch_1.pth'] and not list((disk / 'run').glob('.*.tmp'))
        assert damage(disk / 'run/epoch_1.pth') is None
        subprocess.run(['mount', '-o', 'remount,size=64m', disk], check=True)
        assert train(whole / 'toy.py', disk / 'run') == 0
        ours, theirs = (load_file(f / 'weights/finetune_last.safetensors') for f in (disk / 'run', whole / 'run'))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    finally:
        subprocess.run(['umount', '-l', disk], check=True)
