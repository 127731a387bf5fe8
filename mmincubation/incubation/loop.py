"""IncubationLoop: meta model, the K modules, assembly and fine-tuning as one mmengine training loop."""
from copy import deepcopy
from fractions import Fraction
from functools import partial
from pathlib import Path

from mmengine.dist import get_rank, get_world_size, is_distributed
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODEL_WRAPPERS
from torch.distributed import get_world_size as size_of

from mmincubation.checkpoints import CheckpointError
from mmincubation.registry import LOOPS
from mmincubation.resumable import EpochLoop
from mmincubation.resumable.draws import seed_process
from mmincubation.vit.sharding import shard, shard_options

from .groups import ModuleGroups, losses_of_all, states_of
from .phases import Phase, check_mode, read_phases, select_phases
from .recipe import as_read, check_recipe, optim_wrapper_cfg, scheduler_cfgs
from .start import check_start
from .weights import PhaseWeights


@LOOPS.register_module()
class IncubationLoop(EpochLoop):
    """Runs the phases meta, module_0 .. module_{K-1} and finetune on an `IncubationModel`.

    Each phase has its own length, optimiser, schedule and stochastic depth (`phases`, see `read_phases`; the run's
    `optim_wrapper` and `param_scheduler` are what they change). Counters of the Runner run over all phases; schedules
    over one. `recipe` and `start` are described in `recipe.py` and `start.py`. With `phase` one phase runs alone:
    what it needs from earlier phases is read from `weights_dir` (default: `<work_dir>/weights`, where the
    `WeightsHook` puts what each phase trained).

    `mode` says how the modules train: `sequential`, one after another; `joint`, all in one pass over the data, in a
    phase `modules`; `parallel`, in that phase too, each by its own group of ranks, which exchange them for validation,
    checkpoints and what follows. The weights are the same. Source: Deep Incubation, arXiv 2212.04129.
    """
    agreement_period = 1  # iterations between two looks at whether some rank was asked to stop
    data_group = None  # the ranks that train the same: all

    def __init__(self, runner, dataloader, phases: dict, recipe: str = 'clean', start: str = 'random',
                 mode: str = 'sequential', phase: str | None = None, val_interval: int = 1,
                 weights_dir: str | None = None):
        super().__init__(runner, dataloader, max_epochs=1, val_interval=val_interval)
        self.recipe, self.start, self.only_phase = check_recipe(recipe), check_start(start), phase
        self.weights_dir = Path(weights_dir or Path(runner.work_dir) / 'weights')
        modules = len(self.model.division)
        self.mode, self._groups = check_mode(mode, modules, get_world_size()), None
        phases = read_phases(phases, modules, mode)
        self._weights = PhaseWeights(
            self.model, self.weights_dir, start, [p.name for p in phases], alone=phase is not None)
        self.phases = select_phases(phases, phase)
        self._max_epochs = sum(p.epochs for p in self.phases)
        self._max_iters = self._max_epochs * len(self.dataloader)
        self._position, self.phase_epoch, self._entered = 0, 0, False
        self._optim_cfg, self._scheduler_cfg = runner.optim_wrapper, runner.param_schedulers or []
        self._schedules = {part.name: self._schedule(part) for p in self.phases for part in p.parts or [p]}
        self.phase_name = self.phase.name

    @property
    def model(self):
        """The `IncubationModel`, without a distributed wrapper."""
        model = self.runner.model
        return model.module if is_model_wrapper(model) else model

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[self._position]

    @property
    def block_forwards(self) -> Fraction | int:
        """Blocks that one image passes in a training step, on average over the ranks."""
        if self.groups is None:
            return self.model.block_forwards
        depths = self.model.division.depths
        return Fraction(sum(depths), len(depths)) + len(depths) - 1

    @property
    def draw_epoch(self) -> int:
        """Draws come from the epoch of the phase: all modules see the same data in the same order."""
        return self.phase_epoch

    @property
    def phase_iters_left(self) -> int:
        """Iterations that the current phase still has to go."""
        done_before = sum(p.epochs for p in self.phases[:self._position])
        return (done_before + self.phase.epochs) * len(self.dataloader) - self._iter

    def run(self):
        """Train all phases that are left."""
        self.runner.call_hook('before_train')
        while self._position < len(self.phases):
            self._begin_or_continue()
            while self.phase_epoch < self.phase.epochs:
                self.run_epoch()
                self.phase_epoch += 1
                self._say_losses()
                self._validate()
            self._end_phase()
            self._position, self.phase_epoch, self._entered = self._position + 1, 0, False
        self._position -= 1
        self.runner.call_hook('after_train')
        return self.runner.model

    def position(self, meta: dict) -> dict:
        """The phase too, and the epoch in it that comes next."""
        return super().position(meta) | dict(
            phase=self.phase.name, phase_epoch=self.phase_epoch + meta['epoch'] - self._epoch)

    def restore(self, checkpoint: dict) -> None:
        """Continue within a phase: enter it now, so that its optimiser exists when the state arrives."""
        super().restore(checkpoint)
        position, names = checkpoint.get('position', {}), [phase.name for phase in self.phases]
        if position.get('phase') not in names:
            raise CheckpointError(f'the checkpoint to resume from is in phase {position.get("phase")}, this run has '
                                  f'{names}; give a checkpoint of this run')
        self._position, self.phase_epoch = names.index(position['phase']), position['phase_epoch']
        self._enter()
        if self.groups:  # of the optimisers and schedules of all modules, this rank's
            for key in ('optimizer', 'param_schedulers'):
                checkpoint[key] = {name: checkpoint[key][name] for name in self.model.parts}

    def gather(self, checkpoint: dict) -> None:
        """On every rank: bring what rank 0 is about to save of the modules that others train."""
        if self.groups:
            self.groups.exchange(self.model.target)
            states = self.groups.collect(states_of(self.runner.optim_wrapper, self.runner.param_schedulers))
            for key in ('optimizer', 'param_schedulers'):
                if key in checkpoint:
                    checkpoint[key] = {name: state[key] for name, state in states.items()}

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Train on one batch, or, for each rank that this one plays, on that one's share."""
        self._begin_iter(self.draw_epoch, idx)
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        plays = self.dataloader.batch_sampler.plays
        size = len(data_batch['inputs']) // len(plays)
        logs = []
        for i, rank in enumerate(plays):
            seed_process(self.runner.seed, self.draw_epoch, idx, rank)
            share = {key: value[i * size:(i + 1) * size] for key, value in data_batch.items()}
            logs.append(self.model.train_step(share, self.runner.optim_wrapper))
        outputs = {key: sum(log[key] for log in logs) / len(logs) for key in logs[0]}
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _begin_or_continue(self) -> None:
        if self._entered:  # resumed: the Runner has just counted with the totals of all phases
            self._count()
            if self.phase_epoch and not self.epoch_iters_done:
                self._validate()
            return
        self._weights.bring(self.phase, (part.module for p in self.phases for part in p.parts or [p]))
        self._enter()
        if self.phase.name == 'finetune':
            self._validate_assembled()

    @property
    def groups(self) -> ModuleGroups | None:
        """The groups of ranks that train different modules now."""
        if self.mode != 'parallel' or not self.phase.parts:
            return None
        if self._groups is None:
            self._groups = ModuleGroups(self.model.division, self.model.data_preprocessor.mean.device)
        return self._groups

    def _mine(self) -> list[Phase]:
        """What this rank trains in the current phase, each with its own optimiser."""
        parts = self.phase.parts
        return [parts[self.groups.module]] if self.groups else parts or [self.phase]

    def _enter(self) -> None:
        """Freeze, distribute, and build optimisers and schedules for the current phase."""
        phase, runner, mine = self.phase, self.runner, self._mine()
        groups = self.groups
        self.data_group, self.agreement_period = (groups.data_group, 10) if groups else (None, 1)
        self.dataloader.batch_sampler.plays = groups.plays if groups else [get_rank()]
        rates = [part.drop_path_rate for part in phase.parts] or phase.drop_path_rate
        runner.model = self.model  # its parts are distributed, not the whole
        self.model.set_phase(mine[0].name if groups else phase.name, rates, self.recipe)
        self._renew_ddp()
        runner.param_schedulers = None
        self._build_optimisers(mine)
        self._count()
        self.phase_name, self._entered = phase.name, True
        runner.message_hub.log_scalars.clear()  # else the last phase's losses leak into this one's averages
        runner.logger.info(f'phase {phase.name}: {phase.epochs} epochs, {self.model.block_forwards} block-forwards an '
                           f'image, {sum(p.numel() for p in self.model.parameters() if p.requires_grad):,} parameters')

    def _build_optimisers(self, phases: list[Phase]) -> None:
        runner, wrappers, schedulers = self.runner, {}, {}
        for phase in phases:
            self.model.train_only(phase.name)
            cfg = optim_wrapper_cfg(self.recipe, phase.optim_cfg(self._optim_cfg), phase.module)
            if self.groups:
                cfg['accumulative_counts'] = cfg.get('accumulative_counts', 1) * len(self.groups.plays)
            runner.optim_wrapper = wrappers[phase.name] = runner.build_optim_wrapper(cfg)
            runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
            built = runner.build_param_scheduler(deepcopy(self._schedules[phase.name]))
            schedulers[phase.name] = as_read(self.recipe, built)
        self.model.train_only(*wrappers)
        runner.param_schedulers = schedulers if self.phase.parts else schedulers[self.phase.name]
        if self.phase.parts:
            runner.optim_wrapper = OptimWrapperDict(**wrappers)

    def _renew_ddp(self) -> None:
        """Distribute each part that trains: DDP must see what trains now, and be as new as after a resumption."""
        if not is_distributed():
            return
        cfg = self.runner.cfg.get('model_wrapper_cfg') or {}
        options = shard_options(cfg)
        if options is not None and self.phase.name == 'finetune':
            shard(self.model.target, **options)
        elif self.data_group is None or size_of(self.data_group) > 1:
            ddp = dict(type='MMDistributedDataParallel', broadcast_buffers=False, process_group=self.data_group)
            ddp |= cfg if options is None else {}
            self.model.distribute(lambda part: MODEL_WRAPPERS.build(dict(ddp, module=part)))

    def _schedule(self, phase: Phase) -> list[dict]:
        """Configs of a phase's schedulers; checked here, before the first phase trains for days."""
        cfgs = self._scheduler_cfg if phase.param_scheduler is None else phase.param_scheduler
        cfgs = scheduler_cfgs(self.recipe, cfgs if isinstance(cfgs, list) else [cfgs])
        for cfg in cfgs:
            epochs = cfg.get('by_epoch', True)
            cfg.setdefault('end', phase.epochs if epochs else phase.epochs * len(self.dataloader))
            if cfg['end'] <= (begin := cfg.get('begin', 0)):
                raise ValueError(f'phase {phase.name}: the {cfg["type"]} that begins at {begin} would end at '
                                 f'{cfg["end"]} {"epochs" if epochs else "iterations"}; give the phase its own '
                                 'param_scheduler, or more epochs')
        return cfgs

    def _count(self) -> None:
        """Tell the optimisers where in the phase they are, in backward passes."""
        size = len(self.dataloader) * len(self.dataloader.batch_sampler.plays)
        done = self.phase_epoch * size + self.epoch_iters_done * len(self.dataloader.batch_sampler.plays)
        wrapper = self.runner.optim_wrapper
        for part in wrapper.values() if isinstance(wrapper, OptimWrapperDict) else [wrapper]:
            part.initialize_count_status(self.runner.model, done, self.phase.epochs * size)

    def _validate(self) -> None:
        due = self.phase_epoch % self.val_interval == 0 or self.phase_epoch == self.phase.epochs
        if due and self.runner.val_loop is not None:
            self._for_each_module(self.runner.val_loop.run)

    def _end_phase(self) -> None:
        self._for_each_module(partial(self.runner.call_hook, 'after_phase'))

    def _for_each_module(self, do) -> None:
        """Call `do` as a phase of a module would, for each that has trained; for other phases just call it."""
        if not self.phase.parts:
            return do()
        if self.groups:
            self.groups.exchange(self.model.target)
        for part in self.phase.parts:
            self.phase_name = part.name
            self.model.show(part.module)
            do()
        self.phase_name = self.phase.name
        self.model.show(self.model.modules_trained[0])

    def _say_losses(self) -> None:
        """Each group's loss, of which the log otherwise has the first one's alone."""
        if self.groups:
            name = f'train/{self._mine()[0].name}.loss'
            losses = losses_of_all(self.groups, self.runner.message_hub.get_scalar(name).mean(len(self.dataloader)))
            self.runner.logger.info('mean losses of the epoch: ' + ', '.join(
                f'{name} {loss:.4f}' for name, loss in losses.items()))

    def _validate_assembled(self) -> None:
        if self.runner.val_loop is not None:
            self.phase_name = 'assembled'
            self.runner.val_loop.run()
            self.phase_name = self.phase.name
