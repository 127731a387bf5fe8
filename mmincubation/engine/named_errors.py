"""Say in one line what cannot be built or fails in a step: the place in the config, or the files of the batch."""
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from traceback import walk_tb

import torch
from mmengine.runner import BaseLoop, Runner, TestLoop, ValLoop
from torch.utils.data import DataLoader

from mmincubation.errors import CheckpointError, ConfigError, DataError, Stop, naming, one_line
from mmincubation.recovery.lost_processes import naming_lost_processes

BUILDERS = dict(  # the Runner's methods -> what they build
    setup_env='env_cfg', set_randomness='randomness', build_log_processor='log_processor', build_logger='log_level',
    build_visualizer='visualizer', build_model='model', wrap_model='model_wrapper_cfg', register_default_hooks=
    'default_hooks', register_custom_hooks='custom_hooks', build_train_loop='train_cfg', build_val_loop='val_cfg',
    build_test_loop='test_cfg', build_evaluator='the evaluator', build_optim_wrapper='optim_wrapper',
    build_param_scheduler='param_scheduler')
SHOWN = 4
LESS_MEMORY = ('Give a smaller batch_size and accumulative_counts, or with_cp=True; tools/check.py estimates the '
               'memory')


def name_builders(runner: type) -> type:
    """Let each builder of a Runner's class raise a ConfigError that names what it builds."""
    for method, place in BUILDERS.items():
        setattr(runner, method, naming(place)(getattr(runner, method)))
    return runner


@contextmanager
def naming_steps(runner: Runner) -> Iterator[None]:
    """Turn an error of a step, or of a validation, into one line with the batch; its traceback goes to the log file.

    The step is found in the traceback, so nothing is wrapped around it.

    Raises:
        ConfigError: a step, a validation or a test failed. Errors elsewhere pass unchanged: they are bugs.
    """
    try:
        with naming_lost_processes():
            yield
    except (ConfigError, CheckpointError, Stop):
        raise
    except Exception as error:  # of the model, or of data that no check foresees
        if (place := _step_of(error)) is None:
            raise
        _log_traceback(runner.logger, error)
        raise ConfigError(f'{place}: {said(error, LESS_MEMORY)}; the traceback is in the log in '
                          f'{runner.work_dir}') from error


def _step_of(error: Exception) -> str | None:
    """Return the innermost step, validation or test in a traceback, in words; None without one."""
    found = None
    for frame, _ in walk_tb(error.__traceback__):
        loop, name = frame.f_locals.get('self'), frame.f_code.co_name
        if not isinstance(loop, BaseLoop) or name not in ('run', 'run_iter'):
            continue
        kind = 'validation' if isinstance(loop, ValLoop) else 'test' if isinstance(loop, TestLoop) else None
        if name == 'run_iter':
            batch = f'batch {frame.f_locals["idx"] + 1}' if kind else f'iteration {loop.iter + 1}'
            phase = getattr(loop, 'phase_name', None)
            where = f'{kind}, {batch}' if kind else batch + (f' (phase {phase})' if phase else '')
            found = f'{where}, {_contents(frame.f_locals["data_batch"])}'
        elif kind:
            found = kind
    return found


def said(error: Exception, less_memory: str) -> str:
    """Return an error of a step in one line; where memory ran out, with what to do, `less_memory`."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError) or 'DefaultCPUAllocator' in str(error):
        first = (str(error) or 'out of memory').splitlines()[0][:200]
        return f'{first.rstrip(".")}. {less_memory}'
    return one_line(error)


def _log_traceback(logger: logging.Logger, error: Exception) -> None:
    record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, 'the step failed', (),
                               (type(error), error, error.__traceback__))
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


def _contents(batch) -> str:
    """Return the names of a batch's images; of a batch without names, the shape of its images and its labels."""
    if not isinstance(batch, dict):
        return 'a batch without names of files'
    names = [path for sample in batch.get('data_samples') or [] if (path := getattr(sample, 'img_path', None))]
    if names:
        return f'with the images {", ".join(names[:SHOWN])}' + ', ...' * (len(names) > SHOWN)
    inputs, labels = batch.get('inputs'), batch.get('labels')
    shape = f'images of shape {tuple(inputs.shape)}' if isinstance(inputs, torch.Tensor) else 'images'
    return f'with {shape}' + (f' and the labels {labels.tolist()[:16]}' if isinstance(labels, torch.Tensor) else '')


def name_batches(loader: DataLoader, place: str) -> None:
    """Let a loader that cannot put samples into one batch raise a DataError with their shapes."""
    loader.collate_fn = partial(_collate, loader.collate_fn, place)


def _collate(collate: Callable, place: str, samples: list):
    try:
        return collate(samples)
    except Exception as error:
        shapes = sorted({tuple(s['inputs'].shape) for s in samples if isinstance(s, dict) and hasattr(
            s.get('inputs'), 'shape')})
        found = f': they have the shapes {", ".join(map(str, shapes[:SHOWN]))}' if len(shapes) > 1 else ''
        raise DataError(f'{place}: samples that do not fit into one batch{found} ({one_line(error)}); give them one '
                        'size, by a Resize or crop in the pipeline') from error
