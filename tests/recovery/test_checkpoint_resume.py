"""tools/train.py --resume among damaged checkpoints and on a full disk."""
import json
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


@pytest.mark.parametrize('loop, names', [
    ('epoch', ['epoch_4.pth', 'epoch_5.pth']), ('iter', ['iter_16.pth', 'iter_20.pth']),
    ('incub', [f'epoch_{i}.pth' for i in (3, 6, 9, 12, 15, 18, 20)])])
def test_a_run_that_stops_early_is_saved_where_it_ends(images, tmp_path, loop, names):
    """The weights of the reported number; what is done is done when it is resumed."""
    cfg = incubation_config(images, tmp_path, (9, 9, 9)) if loop == 'incub' else e2e_config(images, tmp_path, 9)
    cfg.train_cfg.val_interval, cfg.default_hooks.checkpoint.interval = 1, 3 if loop == 'incub' else 4
    cfg.param_scheduler = [dict(type='ReduceOnPlateauLR', monitor='accuracy/top1', rule='greater', threshold=1000.,
                                threshold_rule='abs')]
    cfg.custom_hooks += [dict(type='EarlyStoppingHook', monitor='accuracy/top1', min_delta=1000., patience=4)]
    if loop == 'iter':
        cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=36, val_interval=4)
        cfg.log_processor.by_epoch = False
        cfg.default_hooks.checkpoint.update(by_epoch=False, interval=16)
    cfg.dump(tmp_path / 'toy.py')
    folder = tmp_path / 'run'
    assert train(tmp_path / 'toy.py', folder) == 0
    assert {*checkpoints(folder)} == {*names}
    last = torch.load(folder / names[-1], weights_only=True)
    result = json.loads((folder / 'result.json').read_text())
    assert last['meta']['iter'] == (80 if loop == 'incub' else 20)
    # Both as before the validation, which a resumed run repeats.
    assert last['param_schedulers'][0]['num_bad_epochs'] == last['hook_states']['EarlyStoppingHook']['wait_count'] == 3
    before = {p: p.read_bytes() for p in folder.glob('*.pth')}
    assert train(tmp_path / 'toy.py', folder, 'auto') == 0
    assert {p: p.read_bytes() for p in folder.glob('*.pth')} == before
    again = json.loads((folder / 'result.json').read_text())
    assert [p['images'] for p in again['phases']] == [p['images'] for p in result['phases']]


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
