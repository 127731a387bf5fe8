"""What the schedules and stochastic depths of phases must be; nothing is built here, so a config can be checked."""
from collections.abc import Sequence

from mmincubation.errors import ConfigError
from mmincubation.vit.spec import Division

from .phases import Phase
from .recipe import follows_score, module_drop_path, scheduler_cfgs

ENDLESS = 10**12  # iterations of an epoch whose length is not known yet


def schedules_of(phases: list[Phase], default: list[dict] | dict, recipe: str, epoch_length: int = ENDLESS
                 ) -> dict[str, list[dict]]:
    """Return the `schedules` of all phases by name, so that a wrong one is found before the first phase trains.

    Raises:
        ConfigError: one is wrong (see `schedules`), or follows a score where modules train side by side.
    """
    found = {sub.name: schedules(sub, default, recipe, epoch_length)
             for phase in phases for sub in phase.subphases or [phase]}
    beside = [cfg for phase in phases for sub in phase.subphases for cfg in found[sub.name]]
    if mixed := [cfg['type'] for cfg in beside if follows_score(cfg)]:
        raise ConfigError(f'param_scheduler: a {mixed[0]} would see the scores of all modules mixed where they train '
                          "side by side; use train_cfg.mode='sequential', or give train_cfg.phases.module a "
                          'param_scheduler that follows no score')
    return found


def schedules(phase: Phase, default: list[dict] | dict, recipe: str, epoch_length: int) -> list[dict]:
    """Return the configs of a phase's schedulers, each with its `end`; `epoch_length` is in iterations.

    Raises:
        ConfigError: one of them would end before it begins, or counts what the recipe does not have.
    """
    cfgs = default if phase.param_scheduler is None else phase.param_scheduler
    cfgs = scheduler_cfgs(recipe, cfgs if isinstance(cfgs, list) else [cfgs])
    for cfg in cfgs:
        epochs = cfg.get('by_epoch', True)
        cfg.setdefault('end', phase.epochs if epochs else phase.epochs * epoch_length)
        if cfg['end'] <= (start := cfg.get('begin', 0)):
            raise ConfigError(f'phase {phase.name}: the {cfg["type"]} that begins at {start} would end at '
                              f'{cfg["end"]} {"epochs" if epochs else "iterations"}; give the phase its own '
                              'param_scheduler, or more epochs')
    return cfgs


def require_like_upstreams(recipe: str, division: Division, phases: Sequence[Phase]) -> None:
    """Require that a meta block before several modules, which runs once for all, has one stochastic depth.

    `phases` are those that one process trains on the same batches.

    Raises:
        ConfigError: the modules need different ones.
    """
    modules = [(p.module, p.drop_path_rate) for p in phases if p.module is not None]
    rates = {i: module_drop_path(recipe, division, i, rate)[0] for i, rate in modules}
    for j in range(division.meta.depth):
        found = sorted({meta[j] for i, meta in rates.items() if division.meta.span(i).start > j})
        if len(found) > 1:
            raise ConfigError(f'modules trained jointly share the meta blocks before them, but block {j} has the '
                              f'stochastic depths {found}: give all modules one depth and one drop_path_rate, or '
                              "take recipe='clean' or mode='sequential'")
