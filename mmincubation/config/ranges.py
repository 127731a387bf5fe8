"""Values that would end a run only after it has begun: numbers out of range, texts of which few are valid."""
import logging
import multiprocessing
from collections.abc import Iterator

from mmengine.config import Config

from .types import optim_wrappers

# The smallest number that makes sense, by dotted place. Where a dict has no such key, its class has a default.
LEAST = {
    **dict.fromkeys(('train_cfg.max_epochs', 'train_cfg.max_iters', 'train_cfg.val_interval',
                     'default_hooks.logger.interval', 'auto_scale_lr.base_batch_size'), 1),
    **{f'{kind}_dataloader.{key}': 0 for kind in ('train', 'val', 'test') for key in ('num_workers', 'timeout')},
    **{f'{kind}_dataloader.prefetch_factor': 1 for kind in ('train', 'val', 'test')},
    'default_hooks.checkpoint.interval': -1,  # never
    'randomness.seed': 0,
}
BOOLS = ('resume', 'auto_scale_lr.enable', 'randomness.deterministic', 'randomness.diff_rank_seed',
         'env_cfg.cudnn_benchmark', *(f'{kind}_dataloader.{key}' for kind in ('train', 'val', 'test')
                                      for key in ('drop_last', 'pin_memory', 'persistent_workers')))
LEVELS = ('DEBUG', 'INFO', 'WARNING', 'ERROR', 'CRITICAL')


def range_problems(cfg: Config) -> Iterator[str]:
    """One line for each."""
    for place, least in LEAST.items():
        value = _at(cfg, place)
        if isinstance(value, str) and place.startswith(('train_cfg', 'default_hooks')):
            continue  # their classes say that they take numbers
        if value is not None and (type(value) is not int or not least <= value < 2**32):  # NumPy's seeds end there
            yield f'{place}={value!r:.60}: give a whole number, {least} or more, below 2**32'
    yield from _not_bools(cfg)
    for place, wrapper in optim_wrappers(cfg):
        limit = (wrapper.get('clip_grad') or {}).get('max_norm') if isinstance(wrapper.get('clip_grad'), dict) else None
        if isinstance(limit, int | float) and not limit > 0:
            yield f'{place}.clip_grad.max_norm={limit!r}: give a number above 0, or clip_grad=None to switch it off'
    level = cfg.get('log_level', 'INFO')
    if level not in LEVELS and level not in [getattr(logging, name) for name in LEVELS]:
        yield f'log_level={level!r:.60}: choose one of {", ".join(LEVELS)}'
    start, valid = _at(cfg, 'env_cfg.mp_cfg.mp_start_method'), multiprocessing.get_all_start_methods()
    if start is not None and start not in valid:
        yield f'env_cfg.mp_cfg.mp_start_method={start!r:.60}: choose one of {", ".join(valid)}'
    for i, pair in enumerate(_at(cfg, 'train_cfg.dynamic_intervals') or []):
        if not (isinstance(pair, list | tuple) and len(pair) == 2 and all(type(n) is int and n > 0 for n in pair)):
            yield f'train_cfg.dynamic_intervals.{i}={pair!r:.60}: give (where it begins, interval), two whole numbers'


def _not_bools(cfg: Config) -> Iterator[str]:
    for place in BOOLS:
        value = _at(cfg, place)
        if value is not None and not isinstance(value, bool):
            yield f'{place}={value!r:.60}: give True or False'


def _at(cfg: Config, place: str):
    node = cfg
    for key in place.split('.'):
        node = node.get(key) if isinstance(node, dict | Config) else None
    return node
