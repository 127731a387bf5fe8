"""Build training steps of a config: as the tools run them, and the plain reference."""
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from mmincubation.check.memory import AMP_ALONE, make_wrapper
from mmincubation.config.models import division_of, is_incubation
from mmincubation.engine.compiling import compile_blocks
from mmincubation.engine.optim import AutocastOptimWrapper
from mmincubation.hooks.runtime_info import wrappers_of
from mmincubation.incubation.loop import training_step
from mmincubation.incubation.model import IncubationModel
from mmincubation.incubation.phase_run import PhaseRun, begin_runs, one_by_one
from mmincubation.incubation.phases import read_phases

from .flops import synchronize
from .reference import PublicStep


def build(cfg: Config, device: torch.device) -> nn.Module:
    """Build the config's model with random weights, in training mode on its device."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = MODELS.build(deepcopy(cfg.model))
    if device.type == 'cpu' or not is_distributed():
        model = revert_sync_batchnorm(model)
    compile_blocks(model, cfg.get('compile'))
    return model.to(device).train()


class Phases:
    """Build steps of a config's phases by name, whatever its mode.

    The order is meta, each module alone, all jointly as `modules`, finetune. A run that is no incubation has one
    phase, `train`.
    """

    def __init__(self, cfg: Config):
        self.cfg, self.modules, self.phases = cfg, [], {}
        self.names = ['train']
        if is_incubation(cfg):
            modules = len(division_of(cfg.model))
            self.phases = {phase.name: phase for phase in read_phases(cfg.train_cfg.phases, modules)}
            self.modules = [phase for phase in self.phases.values() if phase.module is not None]
            self.names = [*self.phases][:-1] + ['modules', 'finetune']

    def parts(self, name: str) -> list[str]:
        """Return the names of the phases that a phase stands for: all modules for `modules`, else itself."""
        return [phase.name for phase in self.modules] if name == 'modules' else [name]

    def ours(self, model: nn.Module, name: str, batch: dict) -> 'TrainStep':
        """Return the step that the tools run."""
        if name == 'train':
            return TrainStep(distributed(model), _as_in_a_run(make_wrapper(self.cfg.optim_wrapper, model)), batch)
        return IncubationStep(model, self._begin(model, name), batch)

    def _begin(self, model: IncubationModel, name: str) -> list[PhaseRun]:
        """Begin a phase; return its runs with their optimisers, distributed."""
        recipe = (self.cfg.get('train_cfg') or {}).get('recipe', 'clean')
        several = name == 'modules'
        runs = begin_runs(model, self.modules if several else [self.phases[name]], recipe, several)
        for run in one_by_one(runs):
            if is_distributed():
                run.distribute(partial(DistributedDataParallel, **DDP))
            run.wrapper = _as_in_a_run(make_wrapper(run.optim_cfg(self.cfg.optim_wrapper), model))
        return runs

    def reference(self, model: nn.Module, name: str, batch: dict) -> Callable[[], object]:
        """Return the public code's step for classifiers, else a step without what makes ours fast (`plain`)."""
        if hasattr(model, 'backbone'):
            return PlainStep(distributed(model), make_wrapper(plain(self.cfg).optim_wrapper, model), batch)
        if name != 'train':
            begin_runs(model, [self.phases[name]], 'paper_code')
        optimizer = self.cfg.optim_wrapper.optimizer
        return PublicStep(model, batch, optimizer.get('lr', 1e-3), optimizer.get('weight_decay', 0.), wrap_public)


def _as_in_a_run(wrapper):
    """Leave the norm of the gradients on the device, as RuntimeInfoHook does: mmengine would wait for it."""
    for one in wrappers_of(wrapper):
        if one.clip_grad_kwargs:
            one.clip_func = partial(_without_result, one.clip_func)
    return wrapper


def _without_result(clip, *args, **kwargs) -> None:
    clip(*args, **kwargs)


def plain(cfg: Config) -> Config:
    """Return a detector's or segmentor's config without what makes it fast: float32, and AdamW without `fused`."""
    cfg = deepcopy(cfg)
    for key in AMP_ALONE:
        cfg.optim_wrapper.pop(key, None)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.optimizer.pop('fused', None)
    for key in ('backbone', 'neck'):
        if 'bf16' in (cfg.model.get(key) or {}):
            cfg.model[key].bf16 = False
    return cfg


class TrainStep:
    """Train one step on a batch in memory."""

    def __init__(self, model: nn.Module, wrapper, batch: dict):
        self.model, self.wrapper, self.batch = model, wrapper, batch
        self.device = next(p for p in model.parameters() if p.requires_grad).device  # others may wait on the CPU

    def feed(self, batch: dict) -> None:
        """Take another batch."""
        self.batch = batch

    @property
    def wrappers(self) -> list:
        """All optimiser wrappers of the step."""
        return list(wrappers_of(self.wrapper))

    @property
    def optimizers(self) -> Iterator[torch.optim.Optimizer]:
        """All optimisers of the step."""
        return (wrapper.optimizer for wrapper in self.wrappers)

    @property
    def autocasts(self) -> bool:
        """Whether all of the step computes in bfloat16; see `make_wrapper` for what stands for an AmpOptimWrapper."""
        return all(isinstance(wrapper, AutocastOptimWrapper) for wrapper in self.wrappers)

    def __call__(self) -> dict:
        """Train once; return the losses, on the device."""
        return self.model.train_step(self.batch, self.wrapper)


class IncubationStep(TrainStep):
    """Train one step of a phase on a batch in memory, as the IncubationLoop does."""

    def __init__(self, model: IncubationModel, runs: list[PhaseRun], batch: dict):
        super().__init__(model, None, batch)
        self.runs = runs

    @property
    def wrappers(self) -> list:
        """All optimiser wrappers of the step."""
        return [run.wrapper for run in self.runs]

    def __call__(self) -> dict:
        """Train once; return the losses, on the device."""
        return training_step(self.model, self.runs, self.batch)


class PlainStep(TrainStep):
    """Train one step with attention as two matrix products; read the losses and wait for the device each time."""

    def __call__(self) -> dict:
        with sdpa_kernel(SDPBackend.MATH):
            losses = {key: value.item() for key, value in super().__call__().items()}
        synchronize(self.device)
        return losses


DDP = dict(device_ids=None, broadcast_buffers=False)


def distributed(model: nn.Module) -> nn.Module:
    """Return the model wrapped for several ranks; a single rank gets it unchanged."""
    return MMDistributedDataParallel(model, **DDP) if is_distributed() else model


def wrap_public(network: nn.Module) -> nn.Module:
    """Return the public code's network wrapped for several ranks; a single rank gets it unchanged.

    It looks for unused parameters if something is frozen.
    """
    if not is_distributed():
        return network
    frozen = any(not parameter.requires_grad for parameter in network.parameters())
    return DistributedDataParallel(network, find_unused_parameters=frozen)
