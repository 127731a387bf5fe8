"""Say in one line what cannot be built or fails in a step: the place in the config, or the files of the batch."""
import logging
from collections.abc import Callable
from functools import partial, wraps

import torch
from mmengine.runner import BaseLoop
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


def name_builders(runner: type) -> type:
    """Let each builder of a Runner's class raise a ConfigError that names what it builds."""
    for method, place in BUILDERS.items():
        setattr(runner, method, naming(place)(getattr(runner, method)))
    return runner


def name_steps(loop: BaseLoop, kind: str) -> BaseLoop:
    """Let a loop's `run_iter` raise a ConfigError that names the step and its batch; `kind` is `train`, `val` or `test`.

    The traceback goes to the log file.
    """
    run_iter = loop.run_iter

    @wraps(run_iter)
    def named(*args):
        try:
            with naming_lost_processes():
                return run_iter(*args)
        except (ConfigError, CheckpointError, Stop):
            raise
        except Exception as error:  # of the model, of data that no check foresees, or a bug
            _log_traceback(loop.runner.logger, error)
            raise ConfigError(f'{_step(loop, kind, args)}: {_said(error)}; {_contents(args[-1])}. The traceback is in '
                              f'the log file in {loop.runner.work_dir}') from error

    loop.run_iter = named
    return loop


def _step(loop: BaseLoop, kind: str, args: tuple) -> str:
    if kind != 'train':
        return f'{dict(val="validation", test="test")[kind]}, batch {args[0] + 1}'
    phase = getattr(loop, 'phase_name', None)
    return f'iteration {loop.iter + 1}' + (f' (phase {phase})' if phase else '')


def _said(error: Exception) -> str:
    if isinstance(error, torch.OutOfMemoryError):
        return (f'{str(error).splitlines()[0][:200]} Give a smaller batch_size and accumulative_counts, or with_cp=True '
                'where the model has it; tools/check.py estimates the memory')
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
        return 'its batch names no files'
    names = [path for sample in batch.get('data_samples') or [] if (path := getattr(sample, 'img_path', None))]
    if names:
        return f'its images are {", ".join(names[:SHOWN])}' + ', ...' * (len(names) > SHOWN)
    inputs, labels = batch.get('inputs'), batch.get('labels')
    shape = f'images of shape {tuple(inputs.shape)}' if isinstance(inputs, torch.Tensor) else 'images'
    return f'its batch has {shape}' + (f' and the labels {labels.tolist()[:16]}' if labels is not None else '')


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
