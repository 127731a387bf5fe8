"""Estimate the peak memory of a training step: run the real model, loss and optimiser on shapes and count bytes."""
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from math import ceil

import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import Tensor, nn

from mmincubation.config.hooks import hooks_of
from mmincubation.config.rehearsal import training_phases
from mmincubation.incubation.model import IncubationModel
from mmincubation.incubation.phase_run import begin_runs
from mmincubation.incubation.phases import FINETUNE, Phase
from mmincubation.models.on_meta import build_on_meta
from mmincubation.vit.sharding import blocks_of, shard_options

from .batches import input_size, loads_polygons, make_batch
from .tracking import LiveBytes, shapes_only

AMP_ALONE = ('type', 'dtype', 'loss_scale', 'use_fp16')  # settings that other optimiser wrappers do not have
ERROR = 5  # percent; docs/guides/check.md has the measurements, tests/check/test_memory.py holds it


@dataclass(frozen=True)
class Peak:
    """Hold the bytes on one device in a phase of training.

    - `parameters`, `optimizer`, `gradients`: what is there in every step.
    - `kept`: what the forward pass keeps for the backward pass.
    - `buckets`: DistributedDataParallel's copies of the gradients. If the model is `sharded`, the parameters and
      gradients that are full for a while instead. They are computed, not measured.
    - `peak`: the maximum, `buckets` and `average` included.
    - `saved`: the weights and the optimiser's state in a checkpoint, which holds full tensors.
    - `average`: the copy of the weights that an EMAHook makes before the first step.
    """
    phase: str
    parameters: int
    optimizer: int
    gradients: int
    kept: int
    buckets: int
    peak: int
    saved: tuple[int, int]
    sharded: bool = False
    average: int = 0


def estimate(cfg: Config, gpus: int = 1) -> list[Peak]:
    """Return the peak on one of `gpus` devices of each training phase; a run without phases has one, `train`.

    Raises:
        ValueError: the training pipeline does not bound the size of the images.
    """
    size = input_size(cfg.model, cfg.train_dataloader)
    if size is None:
        raise ValueError('train_dataloader: no Resize, RandomCrop or Pad in the pipeline bounds the size of the '
                         'images; memory depends on it')
    count = cfg.train_dataloader['batch_size']
    return [_phase_peak(cfg, phase, size, count, gpus) for phase in training_phases(cfg)]


def forward_fault(cfg: Config) -> Exception | None:
    """Return the error of a forward pass without losses; None without one, or if shapes cannot show it."""
    size = input_size(cfg.model, cfg.train_dataloader)
    model = build_on_meta(cfg)
    if size is None:
        return None
    with shapes_only():
        model.to_empty(device='cpu').train()
        batch = make_batch(cfg.get('default_scope'), size, 2, loads_polygons(cfg.train_dataloader))
        try:
            model(batch['inputs'], batch.get('data_samples'), mode='tensor')
        except Exception as error:
            limits = 'not allocated', 'meta tensor', 'FakeTensor', 'data-dependent', 'data dependent', 'numpy'
            return None if any(words in f'{type(error)} {error}' for words in limits) else error
    return None


def _phase_peak(cfg: Config, phase, size: tuple[int, int], count: int, gpus: int) -> Peak:
    if phase is not None and phase.subphases and cfg.train_cfg.mode == 'parallel':  # a rank trains one of them
        cfg, groups = deepcopy(cfg), len(phase.subphases)  # it trains on the batches of so many, and adds gradients
        cfg.optim_wrapper.accumulative_counts = groups * cfg.optim_wrapper.get('accumulative_counts', 1)
        peaks = [_phase_peak(cfg, part, size, count, gpus // groups) for part in phase.subphases]
        states = sum(peak.saved[1] for peak in peaks)
        largest = max(peaks, key=lambda peak: peak.peak)
        return replace(largest, phase=phase.name, saved=(largest.saved[0], states))
    model = build_on_meta(cfg)
    with shapes_only() as counter:
        model.to_empty(device='cpu').train()
        return _steps(model, _trained(model, cfg, phase), cfg, phase.name if phase else 'train', (size, count, gpus),
                      counter)


@dataclass
class _Trained:
    """Hold what one optimiser trains: a module, its wrapper's config, and further arguments of the model's forward."""
    module: nn.Module
    optim: dict
    arguments: dict
    wrapper: OptimWrapper | None = None


def _trained(model: nn.Module, cfg: Config, phase: Phase | None) -> list[_Trained]:
    optim = cfg.get('optim_wrapper') or {}
    if phase is None:
        return [_Trained(model, optim, {})]
    recipe = cfg.train_cfg.get('recipe', 'clean')
    return [_Trained(run.unwrapped, run.optim_cfg(optim), dict(network=run.network))
            for run in begin_runs(model, phase.subphases or [phase], recipe)]


def _steps(model: nn.Module, trained: list[_Trained], cfg: Config, name: str, batch: tuple,
           counter: LiveBytes) -> Peak:
    size, count, gpus = batch
    # Meta and module phases are replicated, also under FullyShard.
    options = shard_options(cfg.get('model_wrapper_cfg')) if gpus > 1 and name in ('train', 'finetune') else None
    elsewhere, parameters = _bytes(_away(model)), counter.live
    gradients = [_build_optimiser(model, one, len(trained) > 1) for one in trained]
    state = counter.live - parameters
    shards: dict[nn.Parameter, Tensor] = {}
    for parameter in model.parameters() if options is not None else ():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(partial(_keep_shard, shards, gpus))
    counter.restart()
    # When gradients accumulate, they stay between two backward passes: measure both kinds of step.
    adds = max(one.optim.get('accumulative_counts', 1) for one in trained) > 1
    polygons = loads_polygons(cfg.train_dataloader)
    kept = max(_train(model, trained, make_batch(cfg.get('default_scope'), size, count, polygons), last, counter)
               for last in [False] * adds + [True])
    peak = counter.peak - elsewhere
    if options is not None:
        full = Peak(name, parameters - elsewhere, state, sum(gradients), kept, 0, peak, (parameters, state))
        return _sharded_peak(full, gpus, model, **options)
    # DDP copies gradients into buckets, unless they are views of these.
    buckets = sum(gradients) if gpus > 1 and not _views(cfg) else 0
    average = any(hooks_of(cfg, EMAHook)) * (parameters - elsewhere * (name == FINETUNE))
    saved = parameters * (1 + bool(average)), state
    return Peak(name, parameters - elsewhere, state, max(gradients), kept, buckets, peak + buckets + average, saved,
                average=average)


def _build_optimiser(model: nn.Module, one: _Trained, several: bool) -> int:
    """Build one optimiser and its state; return the bytes of its gradients."""
    if several:
        model.train_only(one.module)
    one.wrapper = make_wrapper(one.optim, model)
    parameters = [p for p in model.parameters() if p.requires_grad]
    _first_step(one.wrapper, parameters)
    return _bytes(parameters)


def _train(model: nn.Module, trained: list[_Trained], data: dict, step: bool, counter: LiveBytes) -> int:
    """Run forward, backward and, with `step`, each optimiser; return the bytes kept for the backward pass."""
    kept = 0
    for one in trained:
        if len(trained) > 1:
            model.train_only(one.module)
        before = counter.live
        with one.wrapper.optim_context(model):
            loss = total_loss(model, data, one.arguments)
        kept = max(kept, counter.live - before)
        loss.backward()
        del loss
        if step:
            one.wrapper.step()
            one.wrapper.zero_grad()
    return kept


def _away(model: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that stay on the CPU while a phase trains others."""
    return [p for name, p in model.named_parameters()
            if isinstance(model, IncubationModel) and not model.is_resident(name)]


def _keep_shard(shards: dict, ranks: int, parameter: nn.Parameter) -> None:
    """Replace a gradient that is complete by this rank's shard."""
    shards[parameter], parameter.grad = parameter.new_empty(ceil(parameter.numel() / ranks)), None


def _sharded_peak(peak: Peak, ranks: int, model: nn.Module, reshard_after_forward: bool = True) -> Peak:
    """Return the peak of one rank when all parameters are sharded; the gradients in `peak` are shards already.

    Full for a while are the parameters and gradients outside of blocks, the parameters of two blocks (one computes,
    the next arrives), and the gradients of two (one is being sent). Without `reshard_after_forward` all parameters
    stay full. Frozen parameters are sharded too, and have no gradients.
    """
    away = {id(parameter) for parameter in _away(model)}
    whole = _bytes(p for p in model.parameters() if id(p) not in away)
    blocks = [_bytes(p for p in block.parameters() if id(p) not in away) for block in blocks_of(model)]
    trained = [_bytes(p for p in block.parameters() if p.requires_grad) for block in blocks_of(model)]
    gathered = whole - sum(blocks) + 2 * max(blocks) if reshard_after_forward else whole
    full = gathered + peak.gradients - sum(trained) + 2 * max(trained)
    there = peak.parameters + peak.optimizer
    shards = [ceil(size / ranks) for size in (whole, peak.optimizer, peak.gradients)]
    parameters = peak.parameters - whole + shards[0]
    return Peak(peak.phase, parameters, shards[1], shards[2], peak.kept, full,
                peak.peak - there + parameters + shards[1] + full, peak.saved, sharded=True)


def make_wrapper(optim: dict, model: nn.Module):
    """Build the config's optimiser wrapper for a model.

    An AmpOptimWrapper needs a GPU; AutocastOptimWrapper, which needs the same memory, takes its place.
    """
    optim = deepcopy(dict(optim))
    if str(optim.get('type')).endswith('AmpOptimWrapper'):
        optim = dict(type='mmincubation.AutocastOptimWrapper', **{
            k: v for k, v in optim.items() if k not in AMP_ALONE})
    constructor = optim.pop('constructor', 'DefaultOptimWrapperConstructor')
    paramwise = optim.pop('paramwise_cfg', None)
    build = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
        type=constructor, optim_wrapper_cfg=optim, paramwise_cfg=paramwise))
    return build(model)


def _first_step(wrapper, trained: list[nn.Parameter]) -> None:
    """Take a step with empty gradients, which creates the optimiser's state."""
    for parameter in trained:
        parameter.grad = torch.empty_like(parameter)
    wrapper.step()
    wrapper.zero_grad()


def total_loss(model: nn.Module, data: dict, arguments: dict | None = None) -> Tensor:
    """Return the sum of all losses, as mmengine's `parse_losses` does; `arguments` go to the model's forward."""
    losses = model(**data, mode='loss', **(arguments or {}))
    values = [v for name, value in losses.items() if 'loss' in name
              for v in (value if isinstance(value, list | tuple) else [value])]
    return sum(v.mean() for v in values)


def _bytes(tensors) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


def _views(cfg: Config) -> bool:
    return bool((cfg.get('model_wrapper_cfg') or {}).get('gradient_as_bucket_view'))
