"""The phases of an incubation, read from the config."""
from copy import deepcopy
from dataclasses import dataclass, field, fields
from difflib import get_close_matches

from mmengine.config import Config

from mmincubation.errors import CheckpointError
from mmincubation.vit.spec import Division, rate_faults

META, FINETUNE = 'meta', 'finetune'
ASSEMBLED = 'assembled'  # what is validated between incubation and fine-tuning
WHOLE = (ASSEMBLED, FINETUNE)  # where the model that the run is about is validated; before, it is other networks
MODES = ('sequential', 'joint', 'parallel')


@dataclass
class Phase:
    """One phase: `meta`, `module_<i>`, `finetune`, or `modules` for modules that train side by side.

    `optim_wrapper` is merged into the run's, `param_scheduler` replaces the run's. `subphases` are the phases
    `module_<i>` that the phase `modules` runs side by side.
    """
    name: str
    epochs: int
    drop_path_rate: float = 0.
    optim_wrapper: dict = field(default_factory=dict)
    param_scheduler: list | dict | None = None
    subphases: list['Phase'] = field(default_factory=list)

    @property
    def module(self) -> int | None:
        """The number of the module that incubates, None in other phases."""
        return module_number(self.name)

    def optim_cfg(self, base: dict) -> dict:
        """Return the run's optimiser wrapper `base` with this phase's changes."""
        # Copies, because the merge may change its arguments.
        return Config._merge_a_into_b(deepcopy(self.optim_wrapper), deepcopy(dict(base)))


def module_number(name: str) -> int | None:
    """Return i for `module_<i>`, None for the name of another phase or network."""
    return int(name.removeprefix('module_')) if name.startswith('module_') else None


def phase_names(modules: int) -> list[str]:
    """Return the names of all phases of K modules, in the order in which they run."""
    return [META, *(f'module_{i}' for i in range(modules)), FINETUNE]


def block_forwards(division: Division, phase: Phase, mode: str = 'sequential') -> int:
    """Return how many blocks one image passes in a training step of a phase, in all networks that it trains."""
    if phase.name in (META, FINETUNE):
        return division.meta.depth if phase.name == META else division.depth
    around = division.meta.depth - division.meta_depth  # the meta blocks of a hybrid
    modules = [sub.module for sub in phase.subphases or [phase]]
    if phase.subphases and mode == 'joint':  # the meta blocks upstream run once for all modules
        return around + sum(division.depths[i] + around - division.meta.span(i).start for i in modules)
    return sum(division.depths[i] + around for i in modules)


def valid_mode(mode: str, modules: int, ranks: int) -> str:
    """Return `mode` if it is valid.

    Raises:
        ValueError: it is unknown, or it is `parallel` and the number of ranks is no multiple of K.
    """
    if mode not in MODES:
        raise ValueError(f'train_cfg.mode={mode!r} is unknown; valid: {list(MODES)}')
    if mode == 'parallel' and ranks % modules:
        sizes = ', '.join(str(modules * i) for i in range(max(ranks // modules, 1), max(ranks // modules, 1) + 3))
        raise ValueError(f"train_cfg.mode='parallel' gives each of the {modules} modules the same number of processes, "
                         f"this run has {ranks}: start {sizes}, ... of them, or take mode='joint' or 'sequential'")
    return mode


def merge_module_phases(phases: list[Phase]) -> list[Phase]:
    """Return the phases with those of all modules merged into one phase, `modules`.

    Raises:
        ValueError: the modules have different numbers of epochs.
    """
    modules = [phase for phase in phases if phase.module is not None]
    epochs = {phase.epochs for phase in modules}
    if len(epochs) > 1:
        raise ValueError(f'modules that train side by side need the same number of epochs, not {sorted(epochs)}: give '
                         "phases.module alone, or mode='sequential'")
    merged = Phase('modules', *epochs, subphases=modules)
    return [phases[0], merged, phases[-1]]


def read_phases(cfg: dict, modules: int, mode: str = 'sequential') -> list[Phase]:
    """Read the phases from `cfg`: keys `meta`, `module` (all modules), `module_<i>` (changes to one) and `finetune`.

    Raises:
        ValueError: a key, or a key within a phase, is unknown (the nearest valid one is named), a phase has no
            `epochs`, or modules cannot run side by side.
    """
    names, place = phase_names(modules), 'train_cfg.phases'
    wrong = _unknown_keys(place, cfg, [*names, 'module'])
    wrong += [f'{place}.{name}={value!r:.60}: give a dict' for name, value in cfg.items()
              if not isinstance(value, dict)]
    if wrong:
        raise ValueError('\n'.join(wrong))
    # `module_<i>` replaces keys of `module`; their values are not merged.
    merged = {name: dict(cfg.get('module', {}) if name.startswith('module_') else {}, **cfg.get(name, {}))
              for name in names}
    valid = [f.name for f in fields(Phase) if f.name not in ('name', 'subphases')]
    for name, values in merged.items():
        wrong += _unknown_keys(f'{place}.{name}', values, valid)
        if 'epochs' not in values:
            wrong.append(f'{place}.{name} has no `epochs`; give a number of epochs (0 skips the phase)')
        wrong += rate_faults(f'{place}.{name}.drop_path_rate', values.get('drop_path_rate', 0.))
    if wrong:
        raise ValueError('\n'.join(wrong))
    phases = [Phase(name, **values) for name, values in merged.items()]
    return phases if mode == 'sequential' else merge_module_phases(phases)


def incubated_modules(phases: list[Phase]) -> set[int]:
    """Return the numbers of the modules that have epochs; the others begin fine-tuning as the start says."""
    subs = [sub for phase in phases if phase.epochs for sub in phase.subphases or [phase]]
    return {sub.module for sub in subs} - {None}


def select_phases(phases: list[Phase], only: str | None) -> list[Phase]:
    """Return the phases that a run trains: all that have epochs, or the one called `only`.

    Raises:
        ValueError: there is no such phase, no phase has epochs, or fine-tuning alone lacks the file of a module that
            no run trains.
    """
    names = [p.name for p in phases]
    if only is not None and only not in names:
        raise ValueError(f'there is no phase {only!r}; this run has {names}')
    selected = [p for p in phases if only in (None, p.name) and p.epochs]
    if not selected:
        raise ValueError(f'nothing to train: {only or "every phase"} has epochs=0')
    idle = [p.name for p in phases if p.module is not None and not p.epochs]
    if only == FINETUNE and idle and incubated_modules(phases):
        raise ValueError(f'phase finetune alone joins the files of all modules, but {idle[0]} has epochs=0, so no run '
                         'writes its file: train without --phase, or give it epochs')
    return selected


def resumed_phase(phases: list[Phase], name: str | None) -> Phase:
    """Return the phase that a checkpoint was written in.

    Raises:
        CheckpointError: this run has no such phase.
    """
    if found := [phase for phase in phases if phase.name == name]:
        return found[0]
    raise CheckpointError(f'the checkpoint to resume from is in phase {name}, this run has '
                          f'{[phase.name for phase in phases]}; give a checkpoint of this run')


def _unknown_keys(place: str, cfg: dict, valid: list[str]) -> list[str]:
    """Return a line for each key that is not valid."""
    return [f'{place}.{key} is unknown; nearest valid: {", ".join(get_close_matches(key, valid, 1) or valid)}'
            for key in cfg if key not in valid]
