"""Three modes to train the modules: one after another, jointly on the same batches, or each on its own ranks."""
from collections.abc import Iterator
from fractions import Fraction

from mmengine.dist import get_rank

from .groups import ModuleGroups, gather_losses
from .model import IncubationModel
from .phase_run import PhaseRun
from .phases import Phase, block_forwards


class Sequential:
    """Each module trains in a separate phase, on all ranks."""
    data_group = None  # the ranks that train the same network: all
    agreement_period = 1  # iterations between two checks whether a rank was asked to stop

    def __init__(self, model: IncubationModel):
        self.model, self.emulated_ranks = model, [get_rank()]

    def begin(self, phase: Phase) -> list[Phase]:
        """Return the phases that this rank trains from now on: one, or in joint mode all of `modules`."""
        return phase.subphases or [phase]

    def block_forwards(self, phase: Phase) -> Fraction | int:
        """Return how many blocks an image passes in a training step, on average over the ranks."""
        return block_forwards(self.model.division, phase)

    def shares(self, batch: dict) -> Iterator[tuple[int, dict]]:
        """Yield each rank that this one emulates, and that rank's share of the batch."""
        size = len(batch['inputs']) // len(self.emulated_ranks)
        for i, rank in enumerate(self.emulated_ranks):
            yield rank, {key: value[i * size:(i + 1) * size] for key, value in batch.items()}

    def exchange(self) -> None:
        """Send every rank the modules that other ranks have trained."""

    def gather(self, checkpoint: dict, runs: list[PhaseRun]) -> None:
        """Add to a checkpoint what rank 0 does not have. Every rank calls it."""

    def keep_own(self, checkpoint: dict, runs: list[PhaseRun]) -> None:
        """Reduce a checkpoint that is resumed to what this rank trains."""

    def log_losses(self, runner, runs: list[PhaseRun], iterations: int) -> None:
        """Log the mean losses of modules that other ranks have trained in the last iterations."""


class Joint(Sequential):
    """All modules train on the same batches, one after another; the meta blocks before them run once."""

    def block_forwards(self, phase: Phase) -> int:
        """Return how many blocks an image passes in a training step."""
        return block_forwards(self.model.division, phase, 'joint')


class Parallel(Sequential):
    """Each module trains on its own group of ranks; in other phases all ranks train the same network."""
    groups: ModuleGroups | None = None
    _module_groups: ModuleGroups | None = None

    def begin(self, phase: Phase) -> list[Phase]:
        """Return the phase of the module of this rank's group; other phases are not divided."""
        if phase.subphases and self._module_groups is None:
            self._module_groups = ModuleGroups(self.model.division, self.model.data_preprocessor.mean.device)
        self.groups = groups = self._module_groups if phase.subphases else None
        self.data_group = groups and groups.data_group
        self.agreement_period = 10 if groups else 1  # in a check all groups wait for each other
        self.emulated_ranks = groups.emulated_ranks if groups else [get_rank()]
        return [phase.subphases[groups.module]] if groups else [phase]

    def block_forwards(self, phase: Phase) -> Fraction | int:
        """Return the average over the groups."""
        every = block_forwards(self.model.division, phase)
        return Fraction(every, len(self.model.division)) if self.groups else every

    def exchange(self) -> None:
        """Broadcast each module from the first rank of its group."""
        if self.groups:
            self.groups.exchange(self.model.target)

    def gather(self, checkpoint: dict, runs: list[PhaseRun]) -> None:
        """Exchange the modules, and send the optimisers and schedules of all groups to rank 0."""
        if self.groups:
            self.exchange()
            states = self.groups.collect({run.name: run.state_dict() for run in runs})
            for key in ('optimizer', 'param_schedulers'):
                if key in checkpoint:
                    checkpoint[key] = {name: state[key] for name, state in states.items()}

    def keep_own(self, checkpoint: dict, runs: list[PhaseRun]) -> None:
        """Keep only the optimiser and schedules of this group's module in the checkpoint."""
        if self.groups:
            for key in ('optimizer', 'param_schedulers'):
                checkpoint[key] = {run.name: checkpoint[key][run.name] for run in runs}

    def log_losses(self, runner, runs: list[PhaseRun], iterations: int) -> None:
        """Log the loss of each group's first rank; other log lines have only rank 0's."""
        if self.groups:
            mean = runner.message_hub.get_scalar(f'train/{runs[0].prefix}loss').mean(iterations)
            losses = gather_losses(self.groups, mean)
            runner.logger.info('mean losses of the epoch: ' + ', '.join(
                f'{name} {loss:.4f}' for name, loss in losses.items()))


STRATEGIES = dict(sequential=Sequential, joint=Joint, parallel=Parallel)
