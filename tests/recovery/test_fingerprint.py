"""A run that resumes is the run that was begun, or says in which settings it is not."""
import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import ConcatDataset

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.config import settings
from mmincubation.engine import launch
from mmincubation.provenance import content_of
from mmincubation.recovery import fingerprint
from mmincubation.recovery.fingerprint import differences, early_fingerprint
from mmincubation.registry import HOOKS
from mmincubation.result import read_result
from tests.helpers import toy
from tests.helpers.toy import e2e_config, incubation_config, write_images


def arguments(config, *options, **changes) -> Namespace:
    """What tools/train.py would hand over."""
    name = f'experiment_name={changes.get("work_dir")}-{len(options)}-{changes.get("phase")}'
    return toy.arguments(config, *options, name, **changes)


@HOOKS.register_module(name='StopInEpoch2')
class StopInEpoch2(Hook):
    """A kill in the second epoch; with another first value of `at` it never comes."""

    def __init__(self, at: int = 2):
        self.at = at

    def before_train_epoch(self, runner) -> None:
        if runner.epoch == self.at - 1:
            raise KeyboardInterrupt


@pytest.fixture(scope='module')
def stopped(tmp_path_factory):
    """Config, data and work dir of a run that was stopped after the first of its two epochs."""
    folder = tmp_path_factory.mktemp('stopped')
    for name in ('images', 'val'):  # two folders, for fractions of the first
        write_images(folder / name)
    cfg = e2e_config(folder / 'images', folder / 'run', **{'val_dataloader.dataset.root': str(folder / 'val')})
    cfg.dump(folder / 'run.py')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, 'HARMLESS', (*settings.HARMLESS, 'custom_hooks.3'))
        cfg.custom_hooks.append(dict(type='mmincubation.StopInEpoch2'))
        cfg.dump(folder / 'stopped.py')
        with pytest.raises(KeyboardInterrupt):
            launch.train(arguments(folder / 'stopped.py', work_dir=str(folder / 'run')))
    return folder


def files(folder) -> dict:
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob('*')
            if p.is_file() and p.name != '.run.lock'}


def resume(stopped, *options, **changes) -> int:
    return launch.train(arguments(stopped / 'run.py', *options, **dict(work_dir=str(stopped / 'run'), resume='auto')
                                  | changes))


@pytest.mark.parametrize('option, line', [
    ('optim_wrapper.optimizer.lr=0.02', 'optim_wrapper.optimizer.lr: 0.01 -> 0.02'),
    ('optim_wrapper.clip_grad.max_norm=2.0', 'optim_wrapper.clip_grad.max_norm: 1.0 -> 2.0'),
    ('train_cfg.max_epochs=3', 'train_cfg.max_epochs: 2 -> 3'),
    ('model.drop_path_rate=0.1', 'model.drop_path_rate: 0.0 -> 0.1'),
    ('model.arch.mlp_ratio=2', 'model.arch.mlp_ratio: not set -> 2'),
    ('train_dataloader.batch_size=3', 'global batch size: 6 = 6 x 1 ranks x 1 accumulated -> 3 = 3 x 1 ranks x 1'),
    ('optim_wrapper.accumulative_counts=2', '-> 12 = 6 x 1 ranks x 2 accumulated'),
    ('randomness.seed=6', 'randomness.seed: 5 -> 6'),
    ('train_dataloader.dataset.fraction=0.5', 'train_dataloader.dataset.fraction: not set -> 0.5'),
    ('experiment.model=other', "experiment.model: 'toy' -> 'other'")])
def test_what_matters_is_refused_before_anything_is_written(stopped, capsys, option, line):
    before = files(stopped)
    assert resume(stopped, option) == 2
    error = capsys.readouterr().err
    assert line in error and '--allow-changed' in error and 'epoch_1.pth' in error
    assert error.count('\n  ') <= 2  # the change, and the note on what the checkpoint restores, nothing else
    assert files(stopped) == before


def test_an_earlier_run_is_not_written_over(stopped, capsys):
    before = files(stopped)
    assert resume(stopped, resume=None) == 2
    assert 'holds an earlier run, up to epoch_1.pth: go on with --resume' in capsys.readouterr().err
    assert files(stopped) == before


def test_several_changes_are_one_list(stopped, capsys):
    assert resume(stopped, 'train_cfg.max_epochs=3', 'randomness.seed=6') == 2
    assert [line for line in capsys.readouterr().err.splitlines() if ' -> ' in line] == [
        '  randomness.seed: 5 -> 6', '  train_cfg.max_epochs: 2 -> 3']


def test_other_data_behind_the_same_config_are_refused(stopped, tmp_path, capsys):
    """The folder has moved, which is harmless, and has one image less, which is not."""
    write_images(tmp_path / 'images')
    root = f'train_dataloader.dataset.root={tmp_path}/images', f'val_dataloader.dataset.root={tmp_path}/images'
    (tmp_path / 'images/1/3.png').unlink()
    weights = torch.load(stopped / 'run/epoch_1.pth')['state_dict']
    assert resume(stopped, *root) == 2
    error = capsys.readouterr().err
    assert 'data.train: ImageFolder, 24 samples' in error and 'ImageFolder, 23 samples' in error and 'root' not in error
    after = torch.load(stopped / 'run/epoch_1.pth')['state_dict']
    assert all(torch.equal(weights[key], after[key]) for key in weights)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / 'images/2/9.png')  # as many, of another class
    assert resume(stopped, *root, 'log_level=ERROR') == 2
    error = capsys.readouterr().err
    assert 'data.train: ImageFolder, 24 samples, content' in error


def test_another_world_size_is_refused(stopped):
    cfg = Config.fromfile(stopped / 'run.py')
    one, two = early_fingerprint(cfg, 1), early_fingerprint(cfg, 2)
    assert differences(one, two) == [
        'global batch size: 6 = 6 x 1 ranks x 1 accumulated -> 12 = 6 x 2 ranks x 1 accumulated']
    cfg.load_from, cfg.resume = str(stopped / 'run/epoch_1.pth'), True
    fingerprint.require_same_run(cfg, 1, False)
    with pytest.raises(launch.ConfigError, match='12 = 6 x 2 ranks(.|\n)*rates, decay and lengths from the checkpoint.*'
                       'Lengths in iterations fit only if train_dataloader.batch_size x ranks is what it was'):
        fingerprint.require_same_run(cfg, 2, False)


@pytest.mark.parametrize('option, args, about_lengths', [
    ('train_dataloader.batch_size=3', {}, True), ('auto_scale_lr.base_batch_size=6', dict(auto_scale_lr=True), False),
    ('optim_wrapper.optimizer.lr=0.02', {}, False)])
def test_what_the_checkpoint_restores_is_said(stopped, capsys, option, args, about_lengths):
    assert resume(stopped, option, **args) == 2
    error = capsys.readouterr().err
    assert 'begins with the next phase' in error and ('Lengths in iterations' in error) == about_lengths


def test_other_code_is_refused_by_file_and_package(stopped, monkeypatch, capsys):
    ours = fingerprint._from_code()
    assert 'code.mmincubation/recovery/fingerprint.py' in ours and 'version of torch' in ours
    assert not [name for name in ours if '/leaderboard/' in name or '/check/' in name or 'python' in name]
    changed = ours | {'code.mmincubation/engine/optim.py': 'abc', 'version of timm': '0.1'}
    monkeypatch.setattr(fingerprint, '_from_code', lambda: changed)
    monkeypatch.setattr(fingerprint.provenance, 'git_commit', lambda: 'f' * 40)
    assert resume(stopped) == 2
    error = capsys.readouterr().err
    assert 'code.mmincubation/engine/optim.py: another version' in error and '-> 0.1' in error
    assert '(git commit: ' in error and 'f' * 40 in error


def test_a_commit_that_changes_no_training_code_does_not_count(stopped, monkeypatch):
    stored = torch.load(stopped / 'run/epoch_1.pth')['settings']
    assert set(map(type, [*stored, *stored.values()])) == {str}
    monkeypatch.setattr(fingerprint.provenance, 'git_commit', lambda: 'f' * 40)
    fingerprint._compare(stored, {k: v for k, v in stored.items() if k != 'commit'}, False, '')


def test_code_that_changes_on_disk_changes_the_settings(tmp_path, monkeypatch):
    for name in ('__init__.py', 'engine/a.py', 'leaderboard/b.py'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('x = 1\n')
    monkeypatch.setattr(fingerprint.mmincubation, '__file__', str(tmp_path / '__init__.py'))
    before = fingerprint._from_code.__wrapped__()
    (tmp_path / 'leaderboard/b.py').write_text('x = 2\n')
    assert fingerprint._from_code.__wrapped__() == before
    (tmp_path / 'engine/a.py').write_text('x = 2\n')
    after = fingerprint._from_code.__wrapped__()
    assert differences(before, after) == ['code.mmincubation/engine/a.py: another version']


HARMLESS = [
    'log_level=ERROR', 'default_hooks.logger.type=LoggerHook', 'default_hooks.logger.interval=7',
    'default_hooks.checkpoint.max_keep_ckpts=2', 'visualizer.name=other',
    'train_dataloader.num_workers=1', 'train_dataloader.persistent_workers=True', 'val_dataloader.batch_size=5',
    'test_dataloader.batch_size=2', 'train_cfg.val_interval=1', 'env_cfg.cudnn_benchmark=True', 'experiment.note=again',
    'experiment.data=digits']


def test_harmless_changes_resume_in_silence_and_end_in_the_same_weights(stopped, tmp_path, capfd):
    whole = arguments(stopped / 'run.py', work_dir=str(tmp_path / 'whole'))
    assert launch.train(whole) == 0
    copied = tmp_path / 'copied'
    copied.mkdir()
    (copied / 'epoch_1.pth').write_bytes((stopped / 'run/epoch_1.pth').read_bytes())
    (copied / 'last_checkpoint').write_text(str(stopped / 'run/epoch_1.pth'))
    capfd.readouterr()
    assert resume(stopped, *HARMLESS, work_dir=str(copied)) == 0
    out = ''.join(capfd.readouterr())
    assert 'not compared' not in out and 'changed' not in out
    one, two = (load_file(f / 'weights/e2e_last.safetensors') for f in (tmp_path / 'whole', copied))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_allowed_changes_are_said_and_become_the_runs_own(stopped, tmp_path, capfd):
    given = str(stopped / 'run/epoch_1.pth')
    change = 'optim_wrapper.clip_grad.max_norm=2.0', 'train_dataloader.dataset.fraction=0.5'
    run = dict(work_dir=str(tmp_path / 'run'), resume=given)
    assert resume(stopped, *change, **run) == 2
    assert not (tmp_path / 'run/epoch_2.pth').exists()
    capfd.readouterr()
    assert resume(stopped, *change, **run, allow_changed=True) == 0
    out = ''.join(capfd.readouterr())
    assert 'max_norm: 1.0 -> 2.0' in out and 'data.train: ' in out and 'begins with the next phase' in out
    stored = torch.load(tmp_path / 'run/epoch_2.pth')['settings']
    assert stored['optim_wrapper.clip_grad.max_norm'] == '2.0' and '12 samples' in stored['data.train']
    changed = read_result(tmp_path / 'run/result.json')['recipe']['resumed with changes']  # so it is no seed of others
    assert 'optim_wrapper.clip_grad.max_norm: 1.0 -> 2.0' in changed and 'code.' not in changed


@pytest.mark.parametrize('stored', [None, 'text', {'a': 1}, ['a']])
def test_a_checkpoint_without_settings_resumes_with_a_warning(stopped, tmp_path, capfd, stored):
    allow_mm_checkpoints()
    content = torch.load(stopped / 'run/epoch_1.pth')
    content['settings'] = stored
    torch.save(content, tmp_path / 'old.pth')
    capfd.readouterr()
    assert resume(stopped, work_dir=str(tmp_path / 'run'), resume=str(tmp_path / 'old.pth')) == 0
    assert 'not compared with this run' in ''.join(capfd.readouterr())


def test_a_hostile_state_cannot_steer_a_terminal(stopped, tmp_path, capsys):
    allow_mm_checkpoints()
    content = torch.load(stopped / 'run/epoch_1.pth')
    content['settings']['model.\x1b[2J'] = '\x1b]0;title\x07\n' + 'x' * 10_000
    torch.save(content, tmp_path / 'old.pth')
    assert resume(stopped, work_dir=str(tmp_path / 'run'), resume=str(tmp_path / 'old.pth')) == 2
    error = capsys.readouterr().err
    assert '\x1b' not in error and len(error) < 1000


def test_a_phase_alone_is_compared_too(tmp_path, capsys):
    write_images(tmp_path / 'images')
    incubation_config(tmp_path / 'images', tmp_path / 'run', (2, 1, 1)).dump(tmp_path / 'run.py')
    assert launch.train(arguments(tmp_path / 'run.py', phase='meta')) == 0
    change = 'train_cfg.phases.meta.epochs=3'
    assert launch.train(arguments(tmp_path / 'run.py', change, phase='meta', resume='auto')) == 2
    error = capsys.readouterr().err
    assert 'train_cfg.phases.meta.epochs: 2 -> 3' in error and str(tmp_path / 'run/meta/epoch_2.pth') in error
    assert launch.train(arguments(tmp_path / 'run.py', 'log_level=ERROR', phase='meta', resume='auto')) == 0


class Listed:
    """What mmengine's data sets offer."""

    def __init__(self, names, ann_file=''):
        self.names, self.ann_file = names, ann_file

    def __len__(self):
        return len(self.names)

    def get_data_info(self, index):
        return dict(img_path=self.names[index])


def test_content_of_data_sets(tmp_path):
    assert content_of(Listed(['/a/1.jpg', '/a/2.jpg'])) == content_of(Listed(['/b/1.jpg', '/b/2.jpg']))
    assert content_of(Listed(['/a/1.jpg', '/a/2.jpg'])) != content_of(Listed(['/a/1.jpg', '/a/3.jpg']))
    file = tmp_path / 'a.json'
    file.write_text(json.dumps([1]))
    one = content_of(Listed(['x'], str(file)))
    (tmp_path / 'moved').mkdir()
    assert content_of(Listed(['x'], str(file.rename(tmp_path / 'moved/a.json')))) == one
    (tmp_path / 'moved/a.json').write_text(json.dumps([2]))
    assert content_of(Listed(['x'], str(tmp_path / 'moved/a.json'))) != one
    both = ConcatDataset([Listed(['1.jpg']), Listed(['2.jpg'])])
    assert content_of(both).startswith('2 samples: ') and content_of(both).count('Listed, 1 samples') == 2
