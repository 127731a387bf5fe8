"""IncubationLoop: meta model, the K modules, assembly and fine-tuning as one mmengine training loop."""
from copy import deepcopy
from pathlib import Path

from mmengine.dist import barrier, is_distributed, is_main_process
from mmengine.model import is_model_wrapper

from mmincubation.checkpoints import CheckpointError, load_vit, write_tensors
from mmincubation.exact import EpochLoop
from mmincubation.models.sharding import shard, shard_options
from mmincubation.registry import LOOPS

from .assemble import assemble
from .phases import Phase, phase_names, read_phases, select_phases
from .recipe import as_read, check_recipe, optim_wrapper_cfg, scheduler_cfgs
from .start import begin_module, check_start


@LOOPS.register_module()
class IncubationLoop(EpochLoop):
    """Runs the phases meta, module_0 .. module_{K-1} and finetune on an `IncubationModel`.

    Each phase has its own length, optimiser, schedule and stochastic depth (`phases`, see `read_phases`; the run's
    `optim_wrapper` and `param_scheduler` are what they change). Counters of the Runner run over all phases; schedules
    over one. `recipe` and `start` are described in `recipe.py` and `start.py`. With `phase` one phase runs alone:
    what it needs from earlier phases is read from `weights_dir` (default: `<work_dir>/weights`, where the
    `WeightsHook` puts what each phase trained). Source: Deep Incubation, arXiv 2212.04129.
    """

    def __init__(self, runner, dataloader, phases: dict, recipe: str = 'clean', start: str = 'random',
                 phase: str | None = None, val_interval: int = 1, weights_dir: str | None = None):
        super().__init__(runner, dataloader, max_epochs=1, val_interval=val_interval)
        self.recipe, self.start, self.only_phase = check_recipe(recipe), check_start(start), phase
        self.weights_dir = Path(weights_dir or Path(runner.work_dir) / 'weights')
        self.phases = select_phases(read_phases(phases, len(self.model.division)), phase)
        self._max_epochs = sum(p.epochs for p in self.phases)
        self._max_iters = self._max_epochs * len(self.dataloader)
        self._position, self.phase_epoch, self._entered = 0, 0, False
        self._optim_cfg, self._scheduler_cfg = runner.optim_wrapper, runner.param_schedulers or []
        self._schedules = {p.name: self._schedule(p) for p in self.phases}
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
                self._validate()
            self.runner.call_hook('after_phase')
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

    def _begin_or_continue(self) -> None:
        if self._entered:  # resumed: the Runner has just counted with the totals of all phases
            self._count()
            if self.phase_epoch and not self.epoch_iters_done:
                self._validate()
            return
        self._bring_weights()
        self._enter()
        if self.phase.name == 'finetune':
            self._validate_assembled()

    def _enter(self) -> None:
        """Freeze, wrap, and build optimiser and schedules for the current phase."""
        phase, runner = self.phase, self.runner
        self.model.set_phase(phase.name, phase.drop_path_rate, self.recipe)
        self._renew_ddp()
        runner.param_schedulers = None
        cfg = optim_wrapper_cfg(self.recipe, phase.optim_cfg(self._optim_cfg), phase.module)
        runner.optim_wrapper = runner.build_optim_wrapper(cfg)
        runner.scale_lr(runner.optim_wrapper, runner.auto_scale_lr)
        schedulers = runner.build_param_scheduler(deepcopy(self._schedules[phase.name]))
        runner.param_schedulers = as_read(self.recipe, schedulers)
        self._count()
        self.phase_name, self._entered = phase.name, True
        runner.message_hub.log_scalars.clear()  # else the last phase's losses leak into this one's averages
        runner.logger.info(f'phase {phase.name}: {phase.epochs} epochs, {self.model.block_forwards} block-forwards an '
                           f'image, {sum(p.numel() for p in self.model.parameters() if p.requires_grad):,} parameters')

    def _renew_ddp(self) -> None:
        """Copies of the model on all ranks, or, if that is asked for, the assembled target spread over them."""
        if not is_distributed():
            return
        runner, cfg = self.runner, self.runner.cfg.get('model_wrapper_cfg')
        options = shard_options(cfg)
        if options is not None and self.phase.name == 'finetune':
            runner.model = self.model
            shard(self.model.target, **options)
        else:
            copies = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
            runner.model = runner.wrap_model(cfg if options is None else copies, self.model)
            runner._maybe_compile('train_step')

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
        size = len(self.dataloader)
        self.runner.optim_wrapper.initialize_count_status(
            self.runner.model, self.phase_epoch * size + self.epoch_iters_done, self.phase.epochs * size)

    def _validate(self) -> None:
        due = self.phase_epoch % self.val_interval == 0 or self.phase_epoch == self.phase.epochs
        if due and self.runner.val_loop is not None:
            self.runner.val_loop.run()

    def _validate_assembled(self) -> None:
        if self.runner.val_loop is not None:
            self.phase_name = 'assembled'
            self.runner.val_loop.run()
            self.phase_name = self.phase.name

    def _bring_weights(self) -> None:
        """Before a phase begins: give the model what earlier phases have made."""
        model, phase = self.model, self.phase
        alone = self.only_phase is not None
        if phase.module is not None:
            if alone:
                self._load(model.meta, self.weights_dir / 'meta_last.safetensors')
            begin_module(model.target, model.meta, model.division, phase.module, self.start)
        elif phase.name == 'finetune':
            if alone:  # on every rank, so that every rank refuses what does not fit
                return self._load(model.target, self._assemble())
            for module in set(range(len(model.division))) - {p.module for p in self.phases}:
                # 0 epochs of incubation: the start alone, a control
                begin_module(model.target, model.meta, model.division, module, self.start)
            if is_main_process():  # the modules were trained in this model: it is assembled
                write_tensors(self.weights_dir / 'assembled.safetensors', model.target.state_dict(), dict(
                    kind='vit', arch=model.target.arch.to_dict(), division=list(model.division.depths)))

    def _assemble(self) -> Path:
        """Join the parts that other runs have made into one file; returns its path."""
        parts = [self.weights_dir / f'{name}_last.safetensors' for name in phase_names(len(self.model.division))[1:-1]]
        for part in parts:
            self._need(part)
        whole = self.weights_dir / 'assembled.safetensors'
        tensors, header = assemble(parts)
        if is_main_process():
            write_tensors(whole, tensors, header)
        barrier()  # the other ranks read it next
        return whole

    def _need(self, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f'phase {self.phase.name} needs {path}; run the phases before it first '
                                  f'(--phase NAME, one of {phase_names(len(self.model.division))})')

    def _load(self, vit, path: Path) -> None:
        self._need(path)
        report = load_vit(vit, path)
        self.runner.logger.info(f'{path}: {report["coverage"]}')
