"""Hooks that cannot do their work, in an incubation or for want of names."""
from collections.abc import Iterator

from mmengine import hooks
from mmengine.config import Config

from mmincubation.result import ResultError, require_experiment

from .models import is_incubation
from .signatures import resolve


def experiment_problems(cfg: Config) -> Iterator[str]:
    """What result.json needs to know of the run: a config with `experiment`, or with a ResultHook, gets one."""
    if 'experiment' in cfg or any(getattr(cls, 'needs_experiment', False) for _, _, cls in hooks_of(cfg, hooks.Hook)):
        try:
            require_experiment(cfg.get('experiment'))
        except ResultError as error:
            yield str(error)


def picture_problems(cfg: Config, ranks: int | None) -> Iterator[str]:
    """Pictures of a test on several ranks: mmengine's visualisers draw on rank 0 alone, and say nothing."""
    if (ranks or 1) > 1:
        for _, _, cls in hooks_of(cfg, hooks.Hook):
            if getattr(cls, 'needs_one_rank', False):
                yield f'--show-dir: only the first of {ranks} ranks would draw its share of the images; draw with ' \
                      'tools/test.py, in one process'


def hook_problems(cfg: Config) -> Iterator[str]:
    """One line for each hook that would mix what belongs to different phases or modules."""
    if not is_incubation(cfg):
        return
    mode = cfg.train_cfg.get('mode', 'sequential')
    for _, _, cls in hooks_of(cfg, hooks.EMAHook):
        if cls is hooks.EMAHook:  # not a subclass: ours knows phases
            yield "custom_hooks: mmengine's EMAHook would average over the phases of an incubation; write " \
                  "type='mmincubation.EMAHook', which averages fine-tuning"
    finetune = (cfg.train_cfg.get('phases') or {}).get('finetune') or {}
    for place, hook, _ in hooks_of(cfg, hooks.CheckpointHook):
        if hook.get('save_best') and not finetune.get('epochs'):
            yield f'{place}.save_best: it counts the whole model, which this run does not train; leave it out, or ' \
                  'give train_cfg.phases.finetune epochs. WeightsHook writes the best weights of each phase'
    for place, _, _ in hooks_of(cfg, hooks.EarlyStoppingHook):
        if mode in ('joint', 'parallel'):
            yield f'{place}: one EarlyStoppingHook sees the scores of all modules mixed in mode={mode!r}; use ' \
                  "mode='sequential', or leave the hook out"


def hook_dicts(cfg: Config) -> list[tuple[str, dict]]:
    """(place, dict) of the config's hooks."""
    own = [(f'custom_hooks.{i}', hook) for i, hook in enumerate(cfg.get('custom_hooks') or [])]
    return own + [(f'default_hooks.{name}', hook) for name, hook in (cfg.get('default_hooks') or {}).items() if hook]


def hooks_of(cfg: Config, kind: type) -> Iterator[tuple[str, dict, type]]:
    """Yield (place, dict, class) of the config's hooks of a kind, whatever they are called, or given as a class."""
    for place, hook in hook_dicts(cfg):
        name = hook.get('type')
        classes = [cls for _, cls in resolve(name, cfg.get('default_scope') or 'mmengine')] if isinstance(
            name, str) else [name]
        yield from ((place, hook, cls) for cls in classes if isinstance(cls, type) and issubclass(cls, kind))
