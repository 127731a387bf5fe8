"""The two forms of the paper's recipe, `clean` and `paper_code`. All their differences are in this file.

| | clean (what the paper says) | paper_code (what its public code does) |
|---|---|---|
| gradient clipping | as configured | only under AMP |
| pos_embed, cls_token | never decayed | decayed while module 0 incubates |
| stochastic depth in incubation | of target blocks, ramp over the target's D | of all blocks, ramp over the hybrid |
| learning rate | moves every iteration | moves every epoch, one epoch late |
"""
from copy import deepcopy

from mmincubation.errors import ConfigError
from mmincubation.vit.spec import Division
from mmincubation.vit.transformer import drop_path_ramp

RECIPES = ('clean', 'paper_code')


def valid_recipe(recipe: str) -> str:
    """Return `recipe` if it is valid; else raise ValueError."""
    if recipe not in RECIPES:
        raise ValueError(f'unknown recipe {recipe!r}; valid: {list(RECIPES)}')
    return recipe


def module_drop_path(recipe: str, division: Division, module: int, rate: float) -> tuple[list[float], list[float]]:
    """Return the stochastic-depth rates of the meta blocks, and of the blocks of the module that incubates."""
    span, replaced = division.span(module), division.meta.span(module)
    if recipe == 'clean':
        ramp = drop_path_ramp(rate, division.depth)
        return [0.] * division.meta.depth, [ramp[i] for i in span]
    before, after = replaced.start, replaced.start + len(span)
    ramp = drop_path_ramp(rate, len(span) + division.meta.depth - len(replaced))
    # The hybrid's blocks in order: meta blocks, the module, meta blocks. The replaced meta blocks do not run.
    return ramp[:before] + [0.] * len(replaced) + ramp[after:], ramp[before:after]


def optim_wrapper_cfg(recipe: str, cfg: dict, module: int | None) -> dict:
    """Return the optimiser wrapper's config with the recipe's changes; `module` is None outside incubation."""
    cfg = deepcopy(cfg)
    if recipe == 'paper_code':
        if cfg.get('type', 'OptimWrapper') == 'OptimWrapper':  # the one without AMP
            cfg.pop('clip_grad', None)
        if module == 0:
            cfg['paramwise_cfg'] = dict(cfg.get('paramwise_cfg') or {}, no_decay=())
    return cfg


def follows_score(cfg: dict) -> bool:
    """Return whether a schedule waits for a score of the validations."""
    return 'ReduceOnPlateau' in str(cfg.get('type'))


def scheduler_cfgs(recipe: str, cfgs: list[dict]) -> list[dict]:
    """Return the schedules with the recipe's changes: `paper_code` always steps once per epoch.

    Raises:
        ConfigError: `paper_code` with a schedule that counts iterations or follows a score; the public code has none.
    """
    if recipe == 'clean':
        return deepcopy(cfgs)
    if scored := [cfg['type'] for cfg in cfgs if follows_score(cfg)]:
        raise ConfigError(f"param_scheduler: recipe='paper_code' moves the learning rate by epochs alone, {scored} by "
                          "a score; give another schedule, or recipe='clean'")
    if counting := [cfg['type'] for cfg in cfgs if not cfg.get('by_epoch', True)]:
        raise ConfigError(f"recipe='paper_code' moves the learning rate by epochs; give {counting} by_epoch=True")
    return [{key: value for key, value in cfg.items() if key != 'convert_to_iter_based'} for cfg in cfgs]


class LaggedScheduler:
    """A schedule that is one epoch late: the public code steps it with the index of the finished epoch.

    It behaves as the wrapped mmengine scheduler, except that its first step does nothing.
    """

    def __init__(self, scheduler):
        self.scheduler = scheduler
        self.by_epoch = scheduler.by_epoch
        self.waiting = True

    def step(self) -> None:
        """Step the wrapped schedule, from the second call on."""
        if not self.waiting:
            self.scheduler.step()
        self.waiting = False

    def state_dict(self) -> dict:
        """Return the state of the wrapped schedule, and whether the first step is still to come."""
        return dict(self.scheduler.state_dict(), waiting=self.waiting)

    def load_state_dict(self, state: dict) -> None:
        """Load the result of `state_dict`."""
        state = dict(state)
        self.waiting = state.pop('waiting')
        self.scheduler.load_state_dict(state)


def wrap_schedulers(recipe: str, schedulers: list) -> list:
    """Return the schedulers, in `paper_code` one epoch late."""
    return [LaggedScheduler(s) for s in schedulers] if recipe == 'paper_code' else schedulers
