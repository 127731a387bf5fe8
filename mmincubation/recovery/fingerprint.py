"""Keep a fingerprint of what a run's numbers depend on in its checkpoints; compare it before a run resumes."""
import hashlib
from functools import cache
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log

import mmincubation
from mmincubation import provenance
from mmincubation.checkpoints import read_tensors
from mmincubation.config.scaling import accumulation, images_per_step
from mmincubation.config.settings import settings_of
from mmincubation.errors import ConfigError, clean

KEY, CHANGES = 'settings', 'settings_changes'  # of a fingerprint in a checkpoint, and of what was changed before it
ALLOW = '--allow-changed'
NOT_TRAINING = ('check', 'benchmark', 'leaderboard', 'suite', 'demo')  # packages that no training runs
SHOWN = 30  # lines of a diff
BATCH = 'global batch size'
RESTORED = ('optim_wrapper', 'param_scheduler', 'train_cfg.phases', 'auto_scale_lr', BATCH)


class FingerprintHook(Hook):
    """Put the run's fingerprint into every checkpoint and compare it when a run resumes; the tools add it to every
    run.

    `require_same_run` has already compared what can be known without data; this hook also compares the data sets.
    """
    priority = 'HIGHEST'

    def __init__(self, allow_changed: bool = False):
        self.allow_changed = allow_changed
        self._fingerprint: dict[str, str] = {}
        self._changes: list[str] = []

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Raise ConfigError, on every rank, if the fingerprint of a resumed run has changed."""
        if runner._resume:
            lines = _compare(checkpoint.get(KEY), self._current(runner), self.allow_changed, '')
            changed = [line for line in lines if not line.startswith(('code.', 'version of ', '('))]
            self._changes = [*map(str, checkpoint.get(CHANGES, [])), *changed]

    def before_train(self, runner) -> None:
        """Take the fingerprint of the data before the first step."""
        if is_main_process():
            self._current(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the fingerprint, a dict of strings, and the git commit into the checkpoint."""
        checkpoint[KEY] = dict(self._current(runner), commit=provenance.git_commit() or 'none')
        checkpoint[CHANGES] = list(self._changes)

    def add_to_result(self, runner, result: dict, folders: list) -> None:
        """Say in the recipe what was changed when the run was resumed: it is no seed of runs that kept it."""
        if self._changes:
            result['recipe']['resumed with changes'] = '; '.join(self._changes)

    def _current(self, runner) -> dict[str, str]:
        if not self._fingerprint:
            self._fingerprint = early_fingerprint(runner.cfg, get_world_size()) | data_fingerprint(runner)
        return self._fingerprint


def require_same_run(cfg: Config, world_size: int, allow_changed: bool) -> None:
    """Compare a run that is about to resume with its checkpoint, before anything is built or written.

    Raises:
        ConfigError: the fingerprint differs and `allow_changed` is False; the message lists the differences.
    """
    if cfg.get('resume') and cfg.get('load_from'):
        stored = read_tensors(cfg.load_from)[0].get(KEY)
        if isinstance(stored, dict):
            stored = {key: value for key, value in stored.items() if not str(key).startswith('data.')}
        _compare(stored, early_fingerprint(cfg, world_size), allow_changed, f'{cfg.load_from}: ')


def early_fingerprint(cfg: Config, world_size: int) -> dict[str, str]:
    """Return the fingerprint of config, batch and code, which needs no data: strings by name."""
    return {**settings_of(cfg), **_from_batch(cfg, world_size), **_from_code()}


def data_fingerprint(runner) -> dict[str, str]:
    """Return the fingerprint of the training and validation data: strings by name."""
    loaders = dict(train=runner.train_dataloader)
    if runner.val_loop is not None:
        loaders['val'] = runner.val_dataloader
    return {f'data.{mode}': provenance.content_of(loader.dataset) for mode, loader in loaders.items()}


def differences(old: dict, new: dict) -> list[str]:
    """Return one line, `name: old -> new`, for each entry in which two fingerprints differ."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = (_shown(fingerprint.get(key, 'not set')) for fingerprint in (old, new))
        if before != after:
            lines.append(f'{_shown(key)}: {"another version" if key.startswith("code.") else f"{before} -> {after}"}')
    return lines


def _compare(stored, now: dict[str, str], allow_changed: bool, source: str) -> list[str]:
    if not isinstance(stored, dict) or not all(isinstance(text, str) for item in stored.items() for text in item):
        print_log(f'{source}the checkpoint does not say what its run was set to: not compared with this run', 'current',
                  30)
        return []
    commit = stored.get('commit')
    lines = differences({key: value for key, value in stored.items() if key != 'commit'}, now)
    if not lines:
        return []
    if commit not in (None, provenance.git_commit() or 'none'):
        lines.append(f'(git commit: {_shown(commit)} -> {provenance.git_commit()})')
    if any(line.startswith(RESTORED) for line in lines):
        lengths = '. Lengths in iterations fit only if train_dataloader.batch_size x ranks is what it was' * any(
            line.startswith(BATCH) for line in lines)
        lines.append('(in the phase that goes on, the optimiser and its schedules take rates, decay and lengths from '
                     f'the checkpoint: a change of these begins with the next phase{lengths})')
    more = [f'and {len(lines) - SHOWN} more'] if len(lines) > SHOWN else []
    text = ''.join(f'\n  {line}' for line in [*lines[:SHOWN], *more])
    if not allow_changed:
        raise ConfigError(f'{source}this run is not the one to be resumed; undo these changes, or go on with them by '
                          f'{ALLOW}:{text}')
    print_log(f'{source}resumed with changes, as {ALLOW} says:{text}', 'current', 30)
    return lines


def _from_batch(cfg: Config, world_size: int) -> dict[str, str]:
    batch, counts = cfg.train_dataloader.get('batch_size') or 1, accumulation(cfg)
    return {BATCH: f'{images_per_step(cfg, world_size)} = {batch} x {world_size} ranks x {counts} '
                                 'accumulated'}


@cache  # what runs is what was imported, whatever the files become
def _from_code() -> dict[str, str]:
    """Return the versions of packages that compute, and digests of the files of this package that train."""
    root = Path(mmincubation.__file__).parent
    files = [file for file in sorted(root.rglob('*.py')) if file.relative_to(root).parts[0] not in NOT_TRAINING]
    names = {f'code.mmincubation/{file.relative_to(root).as_posix()}': _digest(file.read_bytes()) for file in files}
    found = provenance.versions() | dict(torch=str(torch.__version__))
    return names | {f'version of {name}': found[name] for name in found if name != 'python'}


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]


def _shown(text: str) -> str:
    text = clean(text)
    return text if len(text) <= 120 else f'{text[:80]}...{_digest(text.encode())}'
