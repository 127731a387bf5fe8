"""IncubationLoop: meta model, the K modules, assembly and fine-tuning as one mmengine training loop."""
from collections.abc import Callable
from functools import partial
from pathlib import Path

from mmengine.dist import get_world_size
from mmengine.hooks import EarlyStoppingHook, Hook
from torch import Tensor

from mmincubation.registry import LOOPS
from mmincubation.resumable.draws import seed_process
from mmincubation.resumable.loops import EpochLoop
from mmincubation.vit.sharding import unwrap

from .model import IncubationModel
from .modes import STRATEGIES
from .phase_run import PhaseRun, begin_runs, build_optimisers, count_from, distribute
from .phases import ASSEMBLED, FINETUNE, incubated_modules, read_phases, resumed_phase, select_phases, valid_mode
from .recipe import valid_recipe
from .schedules import schedules_of
from .start import valid_start
from .weights import PhaseWeights


def training_step(model: IncubationModel, runs: list[PhaseRun], batch: dict) -> dict[str, Tensor]:
    """Train the network of each run on one batch; return the losses by name, on the device.

    `batch` holds uint8 `inputs` (B, 3, H, W) and `labels` (B,). Networks train one after another, so that only one has
    activations at a time.
    """
    data, logs = model.data_preprocessor(batch, True), {}  # load: to the device, normalise, mix
    for run in runs:  # one; in joint mode one for each module
        if len(runs) > 1:  # one alone has its rates already
            run.set_drop_path()
        with run.wrapper.optim_context(run.trained):
            losses = model(**data, mode='loss', network=run.network)  # forward: the hybrid; loss: cross entropy
            loss, values = model.parse_losses(losses)
        run.wrapper.update_params(loss)  # backward; step, where no more gradients are accumulated
        logs |= {run.prefix + name: value for name, value in values.items()}
    return logs


def forget_scores(hooks: list[Hook]) -> None:
    """Reset early stopping, because scores of different networks cannot be compared."""
    for hook in hooks:
        if isinstance(hook, EarlyStoppingHook):
            hook.wait_count, hook.best_score = 0, float('-inf' if hook.rule == 'greater' else 'inf')


@LOOPS.register_module()
class IncubationLoop(EpochLoop):
    """Run the phases meta, module_0 .. module_{K-1} and finetune on an `IncubationModel`.

    `phases` gives each its length, optimiser, schedule and stochastic depth (`read_phases`), as changes to the run's.
    Counters of the Runner run over all phases, schedules over one; `stop_training` ends one. `recipe`, `start` and
    `mode` are described in the files of these names. With `phase` one phase runs alone; it reads earlier ones' weights
    from `weights_dir` (default: `<work_dir>/weights`, where the `WeightsHook` writes). Source: arXiv 2212.04129.
    """

    def __init__(self, runner, dataloader, phases: dict, recipe: str = 'clean', start: str = 'random',
                 mode: str = 'sequential', phase: str | None = None, val_interval: int = 1,
                 weights_dir: str | None = None):
        super().__init__(runner, dataloader, max_epochs=1, val_interval=val_interval)
        runner.model = self.model = unwrap(runner.model)  # `distribute` wraps only what trains
        modules = len(self.model.division)
        self.mode = STRATEGIES[valid_mode(mode, modules, get_world_size())](self.model)
        self.recipe, self.only_phase = valid_recipe(recipe), phase
        self.weights_dir = Path(weights_dir or Path(runner.work_dir) / 'weights')
        every = read_phases(phases, modules, mode)
        self._weights = PhaseWeights(self.model, self.weights_dir, valid_start(start), phase,
                                     incubated_modules(every))
        self.phases = select_phases(every, phase)
        self.phase, self.phase_epoch, self.runs, self._resumed = self.phases[0], 0, [], False
        self.phase_name, self._max_epochs = self.phase.name, sum(p.epochs for p in self.phases)
        self._max_iters = self._max_epochs * len(self.dataloader)
        self._optim_cfg, default = runner.optim_wrapper, runner.param_schedulers or []
        self._schedules = schedules_of(self.phases, default, recipe, len(self.dataloader))

    def run(self):
        """Train all remaining phases."""
        self.runner.call_hook('before_train')
        left = self.phases[self.phases.index(self.phase):]
        for self.phase in left:  # meta, module_0 .. module_{K-1}, finetune
            self._begin_phase()
            while self.phase_epoch < self.phase.epochs and not self.stop_training:
                self.run_epoch()  # calls `step` for each batch
                self.phase_epoch += 1
                self.mode.log_losses(self.runner, self.runs, len(self.dataloader))
                self._validate()
            self._for_each_network(partial(self.runner.call_hook, 'after_phase'))
        self.runner.call_hook('after_train')
        return self.runner.model

    def step(self, idx: int, data_batch: dict) -> dict[str, Tensor]:
        """Train on one batch; in parallel mode a rank emulates several ranks, and trains on the share of each."""
        logs = []
        for rank, share in self.mode.shares(data_batch):
            seed_process(self.runner.seed, self.draw_epoch, idx, rank)
            logs.append(training_step(self.model, self.runs, share))
        return {key: sum(log[key] for log in logs) / len(logs) for key in logs[0]}

    def _begin_phase(self) -> None:
        resumed, self._resumed = self._resumed, False
        if not resumed:  # else `restore` has entered the phase
            self.phase_epoch = 0
            self._weights.prepare(self.phase)
            self._enter()
        length, passes = len(self.dataloader), len(self.mode.emulated_ranks)
        count_from(self.runs, self.phase_epoch * length + self.epoch_iters_done, self.phase.epochs * length, passes)
        if resumed and self.phase_epoch and not self.epoch_iters_done:
            self._validate()
        if self.phase_epoch or self.epoch_iters_done:
            return
        if self.phase.name == FINETUNE and self.runner.val_loop is not None:  # again if it wrote what was resumed
            self.phase_name = ASSEMBLED
            self.runner.val_loop.run()
            self.phase_name = self.phase.name
        forget_scores(self.runner.hooks)
        self.stop_training = False  # the validation of the assembled model may have asked to stop

    def _enter(self) -> None:
        """Let the current phase's networks train: freeze, distribute, build optimisers and schedules."""
        runner, phase, mode = self.runner, self.phase, self.mode
        mine = mode.begin(phase)
        self.data_group, self.agreement_period = mode.data_group, mode.agreement_period
        self.dataloader.batch_sampler.emulated_ranks = mode.emulated_ranks
        self.runs = begin_runs(self.model, mine, self.recipe, side_by_side=bool(phase.subphases))
        self._renew_ddp()
        build_optimisers(runner, self.runs, self._optim_cfg, self._schedules, len(mode.emulated_ranks))
        self.phase_name, self.block_forwards = phase.name, mode.block_forwards(phase)
        runner.message_hub.log_scalars.clear()  # else the last phase's losses leak into this one's averages
        runner.logger.info(f'phase {phase.name}: {phase.epochs} epochs, {float(self.block_forwards):g} block-forwards '
                           f'an image, {sum(run.parameters for run in self.runs):,} parameters')

    def _renew_ddp(self) -> None:
        """Wrap what trains again: a resumed run has new wrappers, and they decide the order of sums."""
        distribute(self.runs, self.runner.cfg.get('model_wrapper_cfg') or {}, self.data_group)

    def _validate(self) -> None:
        due = self.phase_epoch % self.val_interval == 0 or self.phase_epoch == self.phase.epochs
        if due and self.runner.val_loop is not None:
            self._for_each_network(self.runner.val_loop.run)

    def _for_each_network(self, do: Callable[[], object]) -> None:
        """Call `do` with the phase's network as predictor; in the phase `modules`, once for each hybrid."""
        self.mode.exchange()
        for phase in self.phase.subphases or [self.phase]:
            self.phase_name = phase.name
            self.model.predict_with(phase.name)
            do()
        self.phase_name = self.phase.name
        self.model.predict_with(self.runs[0].name)

    def position(self, meta: dict) -> dict:
        """Return what `restore` needs: also the phase, and its epoch that comes next."""
        return super().position(meta) | dict(
            phase=self.phase.name, phase_epoch=self.phase_epoch + meta['epoch'] - self._epoch)

    def restore(self, checkpoint: dict) -> None:
        """Enter the phase of a checkpoint, so that its optimiser exists when the state arrives."""
        super().restore(checkpoint)
        position = checkpoint.get('position', {})
        self.phase = resumed_phase(self.phases, position.get('phase'))
        self.phase_epoch, self._resumed = position['phase_epoch'], True
        self._enter()
        self.mode.keep_own(checkpoint, self.runs)

    def gather(self, checkpoint: dict) -> None:
        """Send to rank 0 the modules that other ranks train, before rank 0 saves a checkpoint."""
        self.mode.gather(checkpoint, self.runs)

    @property
    def draw_epoch(self) -> int:
        """The epoch of the phase, in the keys of all draws, so that all modules get the same data in the same order."""
        return self.phase_epoch

    @property
    def phase_iters_left(self) -> int:
        """The number of remaining iterations of the current phase."""
        return (self.phase.epochs - self.phase_epoch) * len(self.dataloader) - self.epoch_iters_done
