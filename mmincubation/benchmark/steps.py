"""Training steps of a config: as the tools run them, and the plain reference."""
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial

import torch
from mmengine.config import Config
from mmengine.dist import is_distributed
from mmengine.model import MMDistributedDataParallel, revert_sync_batchnorm
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel

from mmincubation.check.memory import make_wrapper
from mmincubation.engine.compiling import compile_blocks
from mmincubation.hooks.runtime_info import wrappers_of
from mmincubation.incubation.hybrid import IncubationModel
from mmincubation.incubation.phases import Phase, read_phases
from mmincubation.incubation.recipe import optim_wrapper_cfg
from mmincubation.vit import Arch, Division

from .flops import synchronize
from .reference import PublicStep


def build(cfg: Config, device: torch.device) -> nn.Module:
    """The config's model with random weights, in training mode on its device."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    model = MODELS.build(deepcopy(cfg.model))
    if device.type == 'cpu' or not is_distributed():
        model = revert_sync_batchnorm(model)
    compile_blocks(model, cfg.get('compile'))
    return model.to(device).train()


class Phases:
    """The phases of a config by name, in order, whatever its mode: each module alone, then, as `modules`, all jointly.
    A run that is no incubation has one phase, `train`."""

    def __init__(self, cfg: Config):
        self.cfg, self.modules, self.phases = cfg, [], {}
        self.names = ['train']
        if cfg.train_cfg.type.endswith('IncubationLoop'):
            division = Division.of(Arch.parse(cfg.model.arch).depth, cfg.model.get('modules', 4))
            self.phases = {phase.name: phase for phase in read_phases(cfg.train_cfg.phases, len(division))}
            self.modules = [phase for phase in self.phases.values() if phase.module is not None]
            self.names = [*self.phases][:-1] + ['modules', 'finetune']

    def parts(self, name: str) -> list[str]:
        """The phases, one after another, that a phase stands for."""
        return [phase.name for phase in self.modules] if name == 'modules' else [name]

    def ours(self, model: nn.Module, name: str, batch: dict) -> 'TrainStep':
        """The step that the tools run."""
        recipe = (self.cfg.get('train_cfg') or {}).get('recipe', 'clean')
        if name == 'train':
            wrapper = make_wrapper(self.cfg.optim_wrapper, model)
        elif name == 'modules':
            wrapper = self._jointly(model, recipe)
        else:
            model.set_phase(name, self.phases[name].drop_path_rate, recipe)
            wrapper = self._wrapper(model, self.phases[name], recipe)
        return TrainStep(distributed(model), wrapper, batch)

    def _wrapper(self, model: nn.Module, phase: Phase, recipe: str):
        return make_wrapper(optim_wrapper_cfg(recipe, phase.optim_cfg(self.cfg.optim_wrapper), phase.module), model)

    def _jointly(self, model: nn.Module, recipe: str) -> OptimWrapperDict:
        wrappers = {}
        model.set_phase('modules', [phase.drop_path_rate for phase in self.modules], recipe)
        for phase in self.modules:
            model.train_only(phase.name)
            wrappers[phase.name] = self._wrapper(model, phase, recipe)
        model.train_only(*wrappers)
        return OptimWrapperDict(**wrappers)

    def reference(self, model: nn.Module, name: str, batch: dict) -> Callable[[], object]:
        """The public code's step for classifiers; others, which it has not, as in `plain`."""
        if hasattr(model, 'backbone'):
            return PlainStep(distributed(model), make_wrapper(plain(self.cfg).optim_wrapper, model), batch)
        if name != 'train':
            model.set_phase(name, self.phases[name].drop_path_rate, 'paper_code')
        optimizer = self.cfg.optim_wrapper.optimizer
        return PublicStep(model, batch, optimizer.lr, optimizer.weight_decay, wrap_public)


def plain(cfg: Config) -> Config:
    """A detector's or segmentor's config without what makes it fast: float32, and AdamW as it comes."""
    cfg = deepcopy(cfg)
    cfg.optim_wrapper.type = 'OptimWrapper'
    cfg.optim_wrapper.optimizer.pop('fused', None)
    for part in ('backbone', 'neck'):
        if 'bf16' in (cfg.model.get(part) or {}):
            cfg.model[part].bf16 = False
    return cfg


class TrainStep:
    """One training step on a batch in memory."""

    def __init__(self, model: nn.Module, wrapper, batch: dict):
        self.model, self.wrapper, self.batch = model, wrapper, batch
        self.device = next(p for p in model.parameters() if p.requires_grad).device  # others may wait on the CPU

    def feed(self, batch: dict) -> None:
        """Take another batch."""
        self.batch = batch

    @property
    def optimizers(self) -> Iterator[torch.optim.Optimizer]:
        """All that the step uses."""
        return (wrapper.optimizer for wrapper in wrappers_of(self.wrapper))

    def __call__(self) -> dict:
        """Train once; returns the losses, on the device."""
        return self.model.train_step(self.batch, self.wrapper)


class PlainStep(TrainStep):
    """One whose attention is two matrix products, and which reads its losses and waits for the device every time."""

    def __call__(self) -> dict:
        with sdpa_kernel(SDPBackend.MATH):
            losses = {key: value.item() for key, value in super().__call__().items()}
        synchronize(self.device)
        return losses


def distributed(model: nn.Module) -> nn.Module:
    """The model as several ranks train it; alone, as it is."""
    if not is_distributed():
        return model
    options = dict(device_ids=None, broadcast_buffers=False)
    if isinstance(model, IncubationModel):  # around what trains
        model.distribute(partial(DistributedDataParallel, **options))
        return model
    return MMDistributedDataParallel(model, **options)


def wrap_public(network: nn.Module) -> nn.Module:
    """The public code's network as several ranks train it: it looks for unused parameters where something is frozen."""
    if not is_distributed():
        return network
    frozen = any(not parameter.requires_grad for parameter in network.parameters())
    return DistributedDataParallel(network, find_unused_parameters=frozen)
