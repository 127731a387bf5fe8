"""The settings of a config by dotted name: what decides a run, and of that what makes it another row of the tables."""
import json
import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

from mmengine.config import Config

from mmincubation.registry import is_pretrained

from .scaling import images_per_step
from .types import runner_keys

# Keys of a config, and all below them, that do not change what a run trains or reports: how it was started, what it
# shows, how fast it reads, which checkpoints it keeps, what only a test uses. `load_from` is overwritten by resuming;
# what `data_errors` leaves out is counted, and a run that a sample has stopped goes on with it.
HARMLESS = (
    'work_dir', 'experiment_name', 'resume', 'load_from', 'load_from_fresh', 'launcher', 'model_wrapper_cfg',
    'find_unused_parameters',
    '*.with_cp', 'train_cfg.phase', 'train_cfg.weights_dir', 'train_cfg.val_interval', 'train_cfg.val_begin',
    'experiment.note', 'experiment.data', 'data_errors', 'max_data_errors', 'log_level', 'log_processor', 'visualizer',
    'env_cfg', 'default_hooks.timer', 'default_hooks.logger', 'default_hooks.visualization', 'default_hooks.checkpoint',
    '*_dataloader.num_workers', '*_dataloader.*.in_memory',
    '*_dataloader.persistent_workers', '*_dataloader.pin_memory', '*_dataloader.prefetch_factor',
    '*_dataloader.timeout', 'val_dataloader.batch_size', 'test_*', 'tta_*')
# Other entries cover these: data may move to another folder, its content is compared; batch size, ranks and
# accumulation make up the global batch.
COVERED = ('*_dataloader.*.root', '*_dataloader.*.data_root', 'train_dataloader.batch_size',
           'optim_wrapper.accumulative_counts')
PATHS = ('ann_file', 'checkpoint')  # of these only the file's name counts
# What two runs may differ in and still be seeds of one row: the seed, the names of the row, how it is run and stored.
# The weights that a run begins with belong to the method, which the experiment names; the data are compared by content.
BESIDE_THE_RECIPE = (
    'randomness', 'experiment', 'model_wrapper_cfg', 'compile', 'activation_checkpointing', 'custom_imports',
    'runner_type', 'auto_scale_lr', 'train_cfg.dynamic_intervals', '*.backend_args', '*.file_client_args',
    '*_dataloader.*.ann_file', '*_dataloader.*.data_prefix', '*_dataloader.*.img_prefix',
    '*_dataloader.*.seg_map_prefix', '*_evaluator.*ann_file', '*_evaluator.*outfile_prefix',
    '*_evaluator.*collect_device', '*_evaluator.*collect_dir', '*.metainfo.palette', 'default_hooks.runtime_info')
# Parts of the names of hooks that watch a training and do not change it.
OBSERVERS = ('CostMeter', 'ResultHook', 'WeightsHook', 'Visualization', 'Pictures', 'Logger', 'Timer', 'Profiler')


def settings_of(cfg: Config) -> dict[str, str]:
    """Return the leaves of the config that the Runner and the tools read, by dotted name, without `HARMLESS`."""
    return {key: repr(os.path.basename(value) if _last(key) in PATHS and isinstance(value, str) else value)
            for key, value in _leaves(_read(cfg), '') if not _matches(key, HARMLESS + COVERED)}


def recipe_of(cfg: Config, ranks: int) -> dict[str, str]:
    """Return as JSON what runs that differ in their seed alone share: settings without seed, paths, names and weights.

    `batch` is the number of images between two steps of the optimiser, on all ranks. Lists of plain values are one
    entry.
    """
    read = _without_weights(_read(cfg))
    read['custom_hooks'] = [hook for hook in read.get('custom_hooks') or [] if not _observes(hook)]
    scale = cfg.get('auto_scale_lr') or {}
    found = {key: _text(_file_name(key, value)) for key, value in _leaves(read, '', whole_lists=True)
             if not _matches(key, HARMLESS + COVERED + BESIDE_THE_RECIPE)}
    batch = images_per_step(cfg, ranks)
    if scale.get('enable') and scale.get('base_batch_size') != batch:
        found['auto_scale_lr.base_batch_size'] = _text(scale.get('base_batch_size'))
    if fresh := cfg.get('load_from_fresh'):
        found['load_from_fresh'] = _text(fresh)
    return dict(sorted({**found, 'batch': _text(batch)}.items()))


def _read(cfg: Config) -> dict:
    return {key: value for key, value in cfg.to_dict().items() if key in runner_keys()}


def _without_weights(node):
    """Return a copy without the weights that a model begins with: a model without them has the same recipe."""
    if isinstance(node, list | tuple):
        return [_without_weights(item) for item in node if not is_pretrained(item)]
    if not isinstance(node, dict):
        return node
    return {key: _without_weights(value) for key, value in node.items()
            if key != 'pretrained' and not is_pretrained(value)}


def _observes(hook: dict) -> bool:
    return any(name in str(hook.get('type')) for name in OBSERVERS)


def _file_name(key: str, value):
    """Cut the folder from a path that a data set or metric is given: data are the same in another folder."""
    of_data = '_dataloader.' in key or '_evaluator.' in key
    return os.path.basename(value.rstrip('/')) if of_data and isinstance(value, str) and '/' in value else value


def _text(value) -> str:
    """Return a value as JSON: a tuple as a list, 1.0 as 1, what JSON does not know by its name."""
    def plain(node):
        if isinstance(node, list | tuple):
            return [plain(item) for item in node]
        return int(node) if isinstance(node, float) and node.is_integer() else node

    return json.dumps(plain(value), default=lambda node: getattr(node, '__qualname__', type(node).__name__))


def _matches(key: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(key, pattern) or fnmatchcase(key, f'{pattern}.*') for pattern in patterns)


def _last(key: str) -> str:
    return key.rpartition('.')[2]


def _leaves(node, place: str, whole_lists: bool = False) -> Iterator[tuple[str, object]]:
    """Yield (dotted name, value); with `whole_lists` a list without dicts is one value."""
    items = []
    if isinstance(node, dict):
        items = list(node.items())
    elif isinstance(node, list | tuple) and not (whole_lists and _flat(node)):
        items = list(enumerate(node))
    if not items:
        yield place, node
    for key, value in items:
        yield from _leaves(value, f'{place}.{key}' if place else str(key), whole_lists)


def _flat(node) -> bool:
    return not isinstance(node, dict) and all(map(_flat, node if isinstance(node, list | tuple) else ()))
