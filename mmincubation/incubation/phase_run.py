"""The network that a phase trains, with its optimiser, schedules and stochastic depth."""
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from functools import partial

import torch
from mmengine.dist import is_distributed
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.registry import MODEL_WRAPPERS
from torch import nn
from torch.distributed import ProcessGroup, get_world_size

from mmincubation.resumable.draws import generator_of
from mmincubation.vit.sharding import shard, shard_options
from mmincubation.vit.transformer import drop_path_ramp, set_drop_path

from .hybrid import Hybrid, SharedUpstream
from .model import IncubationModel
from .phases import FINETUNE, META, Phase
from .recipe import module_drop_path, optim_wrapper_cfg, wrap_schedulers
from .schedules import require_like_upstreams

IN_META, IN_TARGET = 0, 1  # in the key of a block's draws


class PhaseRun:
    """A network while a phase trains it.

    `network` maps images to logits. `trained` is the network or its module that trains, which `distribute` wraps;
    `unwrapped` is the same without its wrapper. `build_optimiser` sets `wrapper` and `schedulers`. `prefix` begins the
    names of the losses in the log.
    """

    def __init__(self, model: IncubationModel, phase: Phase, recipe: str = 'clean',
                 upstream: SharedUpstream | None = None, prefix: str = ''):
        self.model, self.phase, self.recipe, self.prefix = model, phase, recipe, prefix
        self.network = model.network(phase.name, upstream)
        self.unwrapped = self.network.module if isinstance(self.network, Hybrid) else self.network
        self.wrapper: OptimWrapper | None = None
        self.schedulers: list = []

    @property
    def name(self) -> str:
        """The phase's name."""
        return self.phase.name

    @property
    def trained(self) -> nn.Module:
        """The network or module that trains, in its distributed wrapper if it has one."""
        return self.network.module if self.phase.module is not None else self.network

    @property
    def parameters(self) -> int:
        """The number of parameters that train."""
        return sum(p.numel() for p in self.unwrapped.parameters())

    def distribute(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Wrap what trains by `wrap`, such as DistributedDataParallel, in place of an earlier wrapper."""
        if self.phase.module is None:
            self.network = wrap(self.unwrapped)
        else:
            self.network.module = wrap(self.unwrapped)

    @property
    def drop_path(self) -> dict[str, list[float]]:
        """The stochastic-depth rates of all blocks of `meta`, and of those blocks of `target` that train."""
        rate, module = self.phase.drop_path_rate, self.phase.module
        if module is None:
            name = 'meta' if self.name == META else 'target'
            return {name: drop_path_ramp(rate, getattr(self.model, name).arch.depth)}
        meta, target = module_drop_path(self.recipe, self.model.division, module, rate)
        return dict(meta=meta, target=target)

    def set_drop_path(self) -> None:
        """Set this phase's stochastic-depth rates; blocks that have them already do not change."""
        blocks = self.model.target.blocks
        if self.phase.module is not None:
            span = self.model.division.span(self.phase.module)
            blocks = blocks[span.start:span.stop]
        for name, rates in self.drop_path.items():
            set_drop_path(self.model.meta.blocks if name == 'meta' else blocks, rates)

    def optim_cfg(self, base: dict) -> dict:
        """Return the config of this phase's optimiser wrapper; `base` is the run's."""
        return optim_wrapper_cfg(self.recipe, self.phase.optim_cfg(base), self.phase.module)

    def build_optimiser(self, runner, cfg: dict, schedules: list[dict], accumulate: int = 1) -> None:
        """Build optimiser and schedules by the runner, for all parameters that require gradients now.

        `cfg` is the run's optimiser wrapper, `schedules` are the phase's. A step accumulates the gradients of
        `accumulate` times as many backward passes.
        """
        cfg = self.optim_cfg(cfg)
        if accumulate > 1:
            cfg['accumulative_counts'] = cfg.get('accumulative_counts', 1) * accumulate
        runner.optim_wrapper = self.wrapper = runner.build_optim_wrapper(cfg)
        runner.scale_lr(self.wrapper, runner.auto_scale_lr)
        self.schedulers = wrap_schedulers(self.recipe, runner.build_param_scheduler(deepcopy(schedules)))

    def state_dict(self) -> dict:
        """Return the state of optimiser and schedules, under their keys in checkpoints."""
        return dict(optimizer=self.wrapper.state_dict(),
                    param_schedulers=[deepcopy(scheduler.state_dict()) for scheduler in self.schedulers])


def begin_runs(model: IncubationModel, phases: Sequence[Phase], recipe: str = 'clean', side_by_side: bool = False
          ) -> list[PhaseRun]:
    """Prepare the model for the phases that this process trains on the same batches; return one PhaseRun for each.

    Everything else is frozen. `side_by_side` prefixes the losses with the names of their modules.

    Raises:
        ConfigError: the hybrids cannot share their upstream meta blocks.
    """
    require_like_upstreams(recipe, model.division, phases)
    upstream = SharedUpstream(model.meta, model.division) if len(phases) > 1 else None
    runs = [PhaseRun(model, phase, recipe, upstream, f'{phase.name}.' * side_by_side) for phase in phases]
    model.set_trained(run.name for run in runs)
    model.train_only(*(run.unwrapped for run in runs))
    _key_draws(model, runs[0].phase.module is not None and len(model.division) > 1)
    for run in reversed(runs):  # in reverse, so that the rates of the first one remain
        run.set_drop_path()
    return runs


def distribute(runs: list[PhaseRun], wrapper_cfg: dict, group: ProcessGroup | None) -> None:
    """Wrap what trains so that gradients are averaged over the ranks of a group (None: all).

    `wrapper_cfg` is the config's `model_wrapper_cfg`.

    `FullyShard` shards fine-tuning in place; module phases and the meta model are copied to every rank.
    """
    if not is_distributed():
        return
    options = shard_options(wrapper_cfg)
    if options is not None and runs[0].name == FINETUNE:
        shard(runs[0].unwrapped, **options)
    elif group is None or get_world_size(group) > 1:
        ddp = dict(type='MMDistributedDataParallel', broadcast_buffers=False, process_group=group)
        ddp |= wrapper_cfg if options is None else {}
        for run in runs:
            run.distribute(lambda network: MODEL_WRAPPERS.build(dict(ddp, module=network)))


def one_by_one(runs: list[PhaseRun]) -> Iterator[PhaseRun]:
    """Yield each run while it alone requires gradients, so that its optimiser takes nothing else; at the end all do."""
    for run in runs:
        run.model.train_only(run.unwrapped)
        yield run
    runs[0].model.train_only(*(run.unwrapped for run in runs))


def build_optimisers(runner, runs: list[PhaseRun], cfg: dict, schedules: dict[str, list[dict]],
                     accumulate: int) -> None:
    """Build the optimisers and schedules of all runs, see `PhaseRun.build_optimiser`, and give them to the runner.

    It has one optimiser, or, where losses have the names of their modules, one for each module by name.
    """
    runner.param_schedulers = None
    for run in one_by_one(runs):
        run.build_optimiser(runner, cfg, schedules[run.name], accumulate)
    runner.param_schedulers = runs[0].schedulers
    if runs[0].prefix:
        runner.optim_wrapper = OptimWrapperDict(**{run.name: run.wrapper for run in runs})
        runner.param_schedulers = {run.name: run.schedulers for run in runs}


def count_from(runs: list[PhaseRun], done: int, total: int, passes: int) -> None:
    """Tell the optimisers how many of the phase's `total` iterations are done, each with `passes` backward passes.

    The Runner's own counters run over all phases.
    """
    for run in runs:
        run.wrapper.initialize_count_status(run.model, done * passes, total * passes)


def _key_draws(model: IncubationModel, keyed: bool) -> None:
    """Let each block of hybrids draw from (step, place of the block), so that all hybrids and modes draw alike.

    With K = 1 the hybrid is the E2E model, and draws as that does.
    """
    for place, vit in ((IN_META, model.meta), (IN_TARGET, model.target)):
        for i, block in enumerate(vit.blocks):
            block.generator = partial(step_generator, place, i) if keyed else None


def step_generator(place: int, block: int, device: torch.device) -> torch.Generator:
    """Return the generator of a block in the step that the process was seeded for (`draws.seed_process`)."""
    return generator_of(device, torch.initial_seed(), place, block)
