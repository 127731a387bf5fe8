"""Keep a fingerprint of what a run's numbers depend on in its checkpoints; compare it before a run resumes."""
import hashlib
import os
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.logging import print_log

import mmincubation
from mmincubation import provenance
from mmincubation.checkpoints import read_tensors, sha256_of
from mmincubation.config.scaling import accumulation, images_per_step
from mmincubation.config.types import runner_keys
from mmincubation.errors import ConfigError

KEY = 'settings'  # of a fingerprint in a checkpoint
ALLOW = '--allow-changed'
# Keys of a config, and all below them, that do not change what a run trains or reports: how it was started, what it
# shows, how fast it reads, which checkpoints it keeps, what only a test uses. `load_from` is overwritten by resuming;
# what `data_errors` leaves out is counted, and a run that a sample has stopped goes on with it.
HARMLESS = (
    'work_dir', 'experiment_name', 'resume', 'load_from', 'load_from_fresh', 'launcher', 'model_wrapper_cfg',
    'find_unused_parameters',
    'model.with_cp', 'train_cfg.phase', 'train_cfg.weights_dir', 'train_cfg.val_interval', 'train_cfg.val_begin',
    'experiment.note', 'experiment.data', 'data_errors', 'max_data_errors', 'log_level', 'log_processor', 'visualizer',
    'env_cfg', 'default_hooks.timer', 'default_hooks.logger', 'default_hooks.visualization', 'default_hooks.checkpoint',
    '*_dataloader.num_workers', '*_dataloader.persistent_workers', '*_dataloader.pin_memory',
    '*_dataloader.prefetch_factor', '*_dataloader.timeout', 'val_dataloader.batch_size', 'test_*', 'tta_*')
# Other entries cover these: data may move to another folder, its content is compared; batch size, ranks and
# accumulation make up the global batch.
COVERED = ('*_dataloader.*.root', '*_dataloader.*.data_root', 'train_dataloader.batch_size',
           'optim_wrapper.accumulative_counts')
PATHS = ('ann_file', 'checkpoint')  # of these only the file's name counts
NOT_TRAINING = ('check', 'benchmark', 'leaderboard', 'demo')  # packages that no training runs
SHOWN = 30  # lines of a diff
RESTORED = ('optim_wrapper', 'param_scheduler', 'train_cfg.phases')


class FingerprintHook(Hook):
    """Put the run's fingerprint into every checkpoint and compare it when a run resumes; the tools add it to every
    run.

    `require_same_run` has already compared what can be known without data; this hook also compares the data sets.
    """
    priority = 'HIGHEST'

    def __init__(self, allow_changed: bool = False):
        self.allow_changed = allow_changed
        self._fingerprint: dict[str, str] = {}

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Raise ConfigError, on every rank, if the fingerprint of a resumed run has changed."""
        if runner._resume:
            _compare(checkpoint.get(KEY), self._current(runner), self.allow_changed, '')

    def before_train(self, runner) -> None:
        """Take the fingerprint of the data before the first step."""
        if is_main_process():
            self._current(runner)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put the fingerprint, a dict of strings, and the git commit into the checkpoint."""
        checkpoint[KEY] = dict(self._current(runner), commit=provenance.git_commit() or 'none')

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
    return {**_from_config(cfg), **_from_batch(cfg, world_size), **_from_code()}


def data_fingerprint(runner) -> dict[str, str]:
    """Return the fingerprint of the training and validation data: strings by name."""
    loaders = dict(train=runner.train_dataloader)
    if runner.val_loop is not None:
        loaders['val'] = runner.val_dataloader
    return {f'data.{mode}': content_of(loader.dataset) for mode, loader in loaders.items()}


def content_of(dataset) -> str:
    """Return a text with a data set's class, its number of samples, and a digest of its content.

    The digest is that of the annotation file, or the data set's own `fingerprint()`, or of its image names. The folder
    does not count, so data may move.
    """
    inner = dataset
    while hasattr(inner, 'dataset'):  # RepeatDataset and the like
        inner = inner.dataset
    if hasattr(inner, 'datasets'):  # concatenated
        return f'{len(dataset)} samples: ' + ' + '.join(map(content_of, inner.datasets))
    words = [f'{type(inner).__name__}, {len(dataset)} samples']
    file = getattr(inner, 'ann_file', None)
    if isinstance(file, str) and os.path.isfile(file):
        words.append(f'{os.path.basename(file)} sha256 {sha256_of(file)[:12]}')
    elif hasattr(inner, 'fingerprint'):
        words.append(f'content {inner.fingerprint()[:12]}')
    elif hasattr(inner, 'get_data_info'):
        names = (os.path.basename(str(inner.get_data_info(i).get('img_path'))) for i in range(len(inner)))
        words.append(f'image names {_digest(chr(0).join(names).encode())}')
    return ', '.join(words)


def differences(old: dict, new: dict) -> list[str]:
    """Return one line, `name: old -> new`, for each entry in which two fingerprints differ."""
    lines = []
    for key in sorted(old.keys() | new.keys()):
        before, after = (_shown(fingerprint.get(key, 'not set')) for fingerprint in (old, new))
        if before != after:
            lines.append(f'{_shown(key)}: {"another version" if key.startswith("code.") else f"{before} -> {after}"}')
    return lines


def _compare(stored, now: dict[str, str], allow_changed: bool, source: str) -> None:
    if not isinstance(stored, dict) or not all(isinstance(text, str) for item in stored.items() for text in item):
        print_log(f'{source}the checkpoint does not say what its run was set to: not compared with this run', 'current',
                  30)
        return
    commit = stored.get('commit')
    lines = differences({key: value for key, value in stored.items() if key != 'commit'}, now)
    if not lines:
        return
    if commit not in (None, provenance.git_commit() or 'none'):
        lines.append(f'(git commit: {_shown(commit)} -> {provenance.git_commit()})')
    if any(line.startswith(RESTORED) for line in lines):
        lines.append('(in the phase that goes on, the optimiser and its schedules take rates, decay and lengths from '
                     'the checkpoint: a change of these begins with the next phase)')
    more = [f'and {len(lines) - SHOWN} more'] if len(lines) > SHOWN else []
    text = ''.join(f'\n  {line}' for line in [*lines[:SHOWN], *more])
    if not allow_changed:
        raise ConfigError(f'{source}this run is not the one to be resumed; undo these changes, or go on with them by '
                          f'{ALLOW}:{text}')
    print_log(f'{source}resumed with changes, as {ALLOW} says:{text}', 'current', 30)


def _from_config(cfg: Config) -> dict[str, str]:
    """Return the leaves of the config that the Runner and the tools read, by dotted name, without `HARMLESS`."""
    read = {key: value for key, value in cfg.to_dict().items() if key in runner_keys()}
    leaves = dict(_leaves(read, ''))
    return {key: value for key, value in leaves.items() if not _matches(key, HARMLESS + COVERED)}


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) or fnmatchcase(key, f'{pattern}.*') for pattern in patterns)


def _leaves(node, place: str):
    items = list(node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ())
    if not items:
        name = place.rpartition('.')[2]
        yield place, repr(os.path.basename(node) if name in PATHS and isinstance(node, str) else node)
    for key, value in items:
        yield from _leaves(value, f'{place}.{key}' if place else str(key))


def _from_batch(cfg: Config, world_size: int) -> dict[str, str]:
    batch, counts = cfg.train_dataloader.get('batch_size') or 1, accumulation(cfg)
    return {'global batch size': f'{images_per_step(cfg, world_size)} = {batch} x {world_size} ranks x {counts} '
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
    text = ''.join(char if char.isprintable() else '?' for char in text)
    return text if len(text) <= 120 else f'{text[:80]}...{_digest(text.encode())}'
