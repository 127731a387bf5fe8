"""Build the parts of a run without data and memory: what cannot be built is known before anything is written."""
import inspect
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.logging import MMLogger
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import (
    DATASETS,
    HOOKS,
    METRICS,
    PARAM_SCHEDULERS,
    init_default_scope,
)
from mmengine.runner import get_priority
from mmengine.visualization import Visualizer
from torch import nn
from torch.utils.data import DataLoader

from mmincubation.errors import CheckpointError, ConfigError, naming
from mmincubation.incubation.phase_run import begin_runs
from mmincubation.incubation.phases import read_phases, select_phases
from mmincubation.incubation.schedules import schedules
from mmincubation.models.on_meta import build_for_shapes
from mmincubation.registry import dicts_in

from .hooks import hook_dicts
from .models import division_of, is_incubation
from .sections import kinds_of
from .signatures import resolve, several

EPOCH = 10**6  # iterations of an epoch whose length only the data show
LOADING = ('num_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')


def rehearsal_problems(cfg: Config, mode: str) -> Iterator[str]:
    """One line for each part that cannot be built as the config says; `mode` is `'train'` or `'test'`.

    The model has shapes alone, data sets read no file, and no worker starts.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    with _quiet():
        for place, build in _parts(cfg, mode):
            try:
                with naming(place):
                    build()
            except (ConfigError, CheckpointError) as error:
                # The ranks of a run form their group later.
                if cfg.get('launcher', 'none') == 'none' or 'process group' not in str(error):
                    yield from str(error).splitlines()


@contextmanager
def _quiet() -> Iterator[None]:
    """What is built logs and warns; the run will say it again."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        logging.disable(before)
        for logger in MMLogger._instance_dict.values():  # `logging` does not know them, and they remember
            logger._cache.clear()


def _parts(cfg: Config, mode: str) -> Iterator[tuple[str, Callable]]:
    """Yield (place, function that builds it)."""
    kinds = kinds_of(cfg, mode)
    for kind in kinds:
        yield from _data_parts(cfg, f'{kind}_dataloader')
        metrics = cfg.get(f'{kind}_evaluator') or []
        for i, metric in enumerate(several(metrics)):
            at = f'{kind}_evaluator' + f'.{i}' * isinstance(metrics, list | tuple)
            yield at, lambda metric=metric: METRICS.build(_without_file(metric))
    built: list[nn.Module] = []
    yield 'model', lambda: built.append(build_for_shapes(cfg))
    if mode == 'train':
        for name, hook in hook_dicts(cfg):
            yield name, lambda hook=hook: _build_hook(hook)
        if built:  # else its own problem has been said
            yield 'optim_wrapper', lambda: _build_optimisers(cfg, built[0])


def _data_parts(cfg: Config, place: str) -> Iterator[tuple[str, Callable]]:
    loader = cfg[place]
    options = {key: loader[key] for key in LOADING if loader.get(key)} if loader.get('num_workers') else {}
    yield place, lambda: DataLoader(range(1), **options)
    for at, node in dicts_in(loader['dataset'], f'{place}.dataset'):
        scope = cfg.get('default_scope') or 'mmengine'
        if isinstance(name := node.get('type'), str) and '.pipeline.' not in at and any(
                isinstance(cls, type) and issubclass(cls, BaseDataset) for _, cls in resolve(name, scope)):
            yield at, lambda node=node: DATASETS.build(dict(deepcopy(node), lazy_init=True))


def _without_file(metric: dict) -> dict:
    return dict(deepcopy(metric), ann_file=None) if 'ann_file' in metric else deepcopy(metric)


def _build_hook(cfg: dict) -> None:
    Visualizer.get_instance('rehearsal')  # hooks that draw ask for the current one
    cfg = deepcopy(cfg)
    if (priority := cfg.pop('priority', None)) is not None:
        get_priority(priority)
    HOOKS.build(cfg)


def _build_optimisers(cfg: Config, model: nn.Module) -> None:
    """Build optimiser and schedules of the run, or of each phase of an incubation."""
    default = cfg.get('param_scheduler') or []
    for phase in training_phases(cfg):
        if phase is None:
            wrapper = _wrapper(cfg.optim_wrapper, model)
            with naming('param_scheduler'):
                _build_schedulers(several(default), wrapper)
            continue
        recipe = cfg.train_cfg.get('recipe', 'clean')
        for run in begin_runs(model, phase.subphases or [phase], recipe):
            with naming(f'phase {run.name}'):
                wrapper = _wrapper(run.optim_cfg(cfg.optim_wrapper), model)
                _build_schedulers(schedules(run.phase, default, recipe, EPOCH), wrapper)


def _build_schedulers(cfgs: list[dict], wrapper) -> None:
    for cfg in cfgs:
        PARAM_SCHEDULERS.build(deepcopy(cfg), default_args=dict(optimizer=wrapper, epoch_length=EPOCH))


def training_phases(cfg: Config) -> list:
    """Return the phases of an incubation, or [None] for any other run."""
    if not is_incubation(cfg):
        return [None]
    loop = cfg.train_cfg
    phases = read_phases(loop.phases, len(division_of(cfg.model)), loop.get('mode', 'sequential'))
    return select_phases(phases, loop.get('phase'))


def _wrapper(optim: dict, model: nn.Module) -> OptimWrapper:
    """Build an optimiser wrapper as mmengine does; without a GPU a plain one stands for an AmpOptimWrapper."""
    optim = deepcopy(dict(optim))
    if str(optim.get('type')).endswith('AmpOptimWrapper') and not torch.cuda.is_available():
        optim = {k: v for k, v in optim.items() if k not in ('type', 'dtype', 'loss_scale', 'use_fp16')}
    wrapper = build_optim_wrapper(model, optim)
    if getattr(wrapper, 'clip_grad_kwargs', None):  # its keys are those of torch's function, called at the first step
        inspect.signature(wrapper.clip_func).bind([], **wrapper.clip_grad_kwargs)
    return wrapper
