"""IncubationLoop: meta model, the K modules, assembly and fine-tuning as one mmengine training loop."""
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.dist import get_world_size, is_distributed
from mmengine.hooks import EarlyStoppingHook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapperDict
from mmengine.registry import MODEL_WRAPPERS
from torch import Tensor
from torch.distributed import get_world_size as size_of

from mmincubation.errors import CheckpointError
from mmincubation.registry import LOOPS
from mmincubation.resumable.draws import seed_process
from mmincubation.resumable.loops import EpochLoop
from mmincubation.vit.sharding import shard, shard_options

from .model import IncubationModel
from .modes import MODES
from .phase_run import PhaseRun, begin, schedules
from .phases import ASSEMBLED, FINETUNE, read_phases, select_phases, valid_mode
from .recipe import valid_recipe
from .start import valid_start
from .weights import PhaseWeights

WORST = dict(greater=float('-inf'), less=float('inf'))


def training_step(model: IncubationModel, runs: list[PhaseRun], batch: dict) -> dict[str, Tensor]:
    """Train the network of each run on one batch; return the losses by name, on the device.

    `batch` holds uint8 `inputs` (B, 3, H, W) and `labels` (B,). Networks train one after another, so that only one has
    activations at a time.
    """
    data, logs = model.data_preprocessor(batch, True), {}  # load: to the device, normalise, mix
    for run in runs:  # one; in joint mode one for each module
        run.set_drop_path()
        with run.wrapper.optim_context(run.trained):
            losses = model(**data, mode='loss', network=run.network)  # forward: the hybrid; loss: cross entropy
            loss, values = model.parse_losses(losses)
        run.wrapper.update_params(loss)  # backward; step, where no more gradients are accumulated
        logs |= {run.prefix + name: value for name, value in values.items()}
    return logs


@LOOPS.register_module()
class IncubationLoop(EpochLoop):
    """Run the phases meta, module_0 .. module_{K-1} and finetune on an `IncubationModel`.

    Each phase has its own length, optimiser, schedule and stochastic depth (`phases`, see `read_phases`; the run's
    `optim_wrapper` and `param_scheduler` are what they change). Counters of the Runner run over all phases, schedules
    over one; `stop_training` ends one. `recipe` and `start` are described in `recipe.py` and `start.py`. With `phase`
    one phase runs alone, and reads what it needs of earlier ones from `weights_dir` (default: `<work_dir>/weights`,
    where the `WeightsHook` puts what each phase trained). `mode` says how the modules train, see `modes.py`.
    Source: Deep Incubation, arXiv 2212.04129.
    """

    def __init__(self, runner, dataloader, phases: dict, recipe: str = 'clean', start: str = 'random',
                 mode: str = 'sequential', phase: str | None = None, val_interval: int = 1,
                 weights_dir: str | None = None):
        super().__init__(runner, dataloader, max_epochs=1, val_interval=val_interval)
        modules = len(self.model.division)
        self.recipe, self.only_phase = valid_recipe(recipe), phase
        self.mode = MODES[valid_mode(mode, modules, get_world_size())](self.model)
        every = read_phases(phases, modules, mode)
        self.weights_dir = Path(weights_dir or Path(runner.work_dir) / 'weights')
        self._weights = PhaseWeights(
            self.model, self.weights_dir, valid_start(start), [p.name for p in every], alone=phase is not None)
        self.phases = select_phases(every, phase)
        self._max_epochs = sum(p.epochs for p in self.phases)
        self._max_iters = self._max_epochs * len(self.dataloader)
        self.phase, self.phase_epoch, self.runs, self._resumed = self.phases[0], 0, [], False
        self._optim_cfg, default = runner.optim_wrapper, runner.param_schedulers or []
        self._schedules = {  # all are read now, before the first phase trains for days
            part.name: schedules(part, default, recipe, len(self.dataloader))
            for p in self.phases for part in p.parts or [p]}
        self.phase_name = self.phase.name

    def run(self):
        """Train all phases that are left."""
        self.runner.call_hook('before_train')
        left = self.phases[self.phases.index(self.phase):]
        for self.phase in left:  # meta, module_0 .. module_{K-1}, finetune
            self._begin_phase()
            while self.phase_epoch < self.phase.epochs and not self.stop_training:
                self.run_epoch()  # calls run_iter for each batch
                self.phase_epoch += 1
                self.mode.log_losses(self.runner, self.runs, len(self.dataloader))
                self._validate()
            self._for_each_network(partial(self.runner.call_hook, 'after_phase'))
            self.phase_epoch = 0
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, idx: int, data_batch: dict) -> None:
        """Train on one batch; a rank that emulates others, on the share of each of them."""
        self._begin_iter(self.draw_epoch, idx)
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        logs = []
        for rank, share in self.mode.shares(data_batch):
            seed_process(self.runner.seed, self.draw_epoch, idx, rank)
            logs.append(training_step(self.model, self.runs, share))
        outputs = {key: sum(log[key] for log in logs) / len(logs) for key in logs[0]}
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def _begin_phase(self) -> None:
        if self._resumed:  # within this phase: `restore` has entered it, the Runner has counted over all phases since
            self._resumed = False
            self._count()
            if self.phase_epoch and not self.epoch_iters_done:
                self._validate()
            return
        self._weights.prepare(self.phase, (part.module for p in self.phases for part in p.parts or [p]))
        self._enter()
        if self.phase.name == FINETUNE and self.runner.val_loop is not None:
            self.phase_name = ASSEMBLED
            self.runner.val_loop.run()
            self.phase_name = self.phase.name
        for hook in self.runner.hooks:
            if isinstance(hook, EarlyStoppingHook):  # the scores of another network are no measure for this one
                hook.wait_count, hook.best_score = 0, WORST[hook.rule]
        self.stop_training = False

    def _enter(self) -> None:
        """Let the current phase's networks train: freeze, distribute, build optimisers and schedules."""
        runner, phase = self.runner, self.phase
        mine = self.mode.begin(phase)
        self.data_group, self.agreement_period = self.mode.data_group, self.mode.agreement_period
        self.dataloader.batch_sampler.emulated_ranks = self.mode.emulated_ranks
        runner.model = self.model  # what trains is distributed, not the whole
        self.runs = begin(self.model, mine, self.recipe, side_by_side=bool(phase.parts))
        self._renew_ddp()
        runner.param_schedulers = None
        for run in self.runs:
            run.build_optimiser(runner, self._optim_cfg, self._schedules[run.name], len(self.mode.emulated_ranks))
        self.model.train_only(*(run.plain for run in self.runs))
        if phase.parts:
            runner.optim_wrapper = OptimWrapperDict(**{run.name: run.wrapper for run in self.runs})
        runner.param_schedulers = {run.name: run.schedulers for run in self.runs} if phase.parts else \
            self.runs[0].schedulers
        self._count()
        self.phase_name, self.block_forwards = phase.name, self.mode.block_forwards(phase)
        runner.message_hub.log_scalars.clear()  # else the last phase's losses leak into this one's averages
        parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        runner.logger.info(f'phase {phase.name}: {phase.epochs} epochs, {float(self.block_forwards):g} block-forwards '
                           f'an image, {parameters:,} parameters')

    def _count(self) -> None:
        """Tell the optimisers where in the phase they are, in backward passes."""
        each = len(self.mode.emulated_ranks)
        size = len(self.dataloader) * each
        for run in self.runs:
            run.wrapper.initialize_count_status(
                self.runner.model, self.phase_epoch * size + self.epoch_iters_done * each, self.phase.epochs * size)

    def _renew_ddp(self) -> None:
        """Distribute what trains: DDP must see what trains now, and be as new as after a resumption."""
        if not is_distributed():
            return
        cfg = self.runner.cfg.get('model_wrapper_cfg') or {}
        options = shard_options(cfg)
        if options is not None and self.phase.name == FINETUNE:
            shard(self.model.target, **options)
        elif self.data_group is None or size_of(self.data_group) > 1:
            ddp = dict(type='MMDistributedDataParallel', broadcast_buffers=False, process_group=self.data_group)
            ddp |= cfg if options is None else {}
            for run in self.runs:
                run.distribute(lambda network: MODEL_WRAPPERS.build(dict(ddp, module=network)))

    def _validate(self) -> None:
        due = self.phase_epoch % self.val_interval == 0 or self.phase_epoch == self.phase.epochs
        if due and self.runner.val_loop is not None:
            self._for_each_network(self.runner.val_loop.run)

    def _for_each_network(self, do: Callable[[], object]) -> None:
        """Show the network of the phase, or each module's as its own phase would, and call `do`."""
        self.mode.exchange()
        for part in self.phase.parts or [self.phase]:
            self.phase_name = part.name
            self.model.show(part.name)
            do()
        self.phase_name = self.phase.name
        self.model.show(self.runs[0].name)

    def position(self, meta: dict) -> dict:
        """Add the phase, and the epoch in it that comes next."""
        return super().position(meta) | dict(
            phase=self.phase.name, phase_epoch=self.phase_epoch + meta['epoch'] - self._epoch)

    def restore(self, checkpoint: dict) -> None:
        """Enter the phase of a checkpoint, so that its optimiser exists when the state arrives."""
        super().restore(checkpoint)
        position, names = checkpoint.get('position', {}), [phase.name for phase in self.phases]
        if position.get('phase') not in names:
            raise CheckpointError(f'the checkpoint to resume from is in phase {position.get("phase")}, this run has '
                                  f'{names}; give a checkpoint of this run')
        self.phase, self.phase_epoch = self.phases[names.index(position['phase'])], position['phase_epoch']
        self._enter()
        self._resumed = True
        self.mode.keep_own(checkpoint, self.runs)

    def gather(self, checkpoint: dict) -> None:
        """Bring to rank 0 what it is about to save of the modules that other ranks train."""
        self.mode.gather(checkpoint, self.runs)

    @property
    def model(self) -> IncubationModel:
        """The model without a distributed wrapper."""
        model = self.runner.model
        return model.module if is_model_wrapper(model) else model

    @property
    def draw_epoch(self) -> int:
        """The epoch that draws come from: the phase's, so that all modules see the same data in the same order."""
        return self.phase_epoch

    @property
    def phase_iters_left(self) -> int:
        """Iterations that the current phase still has to go."""
        return (self.phase.epochs - self.phase_epoch) * len(self.dataloader) - self.epoch_iters_done
