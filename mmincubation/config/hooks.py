"""Hooks that cannot do their work in an incubation."""
from collections.abc import Iterator

from mmengine import hooks
from mmengine.config import Config

from .models import is_incubation
from .signatures import resolve


def hook_problems(cfg: Config) -> Iterator[str]:
    """One line for each hook that would mix what belongs to different phases or modules."""
    if not is_incubation(cfg):
        return
    mode = cfg.train_cfg.get('mode', 'sequential')
    for place, hook in hooks_of(cfg):
        classes = hook_classes(hook, cfg.get('default_scope'))
        if hooks.EMAHook in classes:  # itself, not a subclass: ours knows phases
            yield "custom_hooks: mmengine's EMAHook would average over the phases of an incubation; write " \
                  "type='mmincubation.EMAHook', which averages fine-tuning"
        early = any(issubclass(cls, hooks.EarlyStoppingHook) for cls in classes if isinstance(cls, type))
        if early and mode in ('joint', 'parallel'):
            yield f'{place}: one EarlyStoppingHook sees the scores of all modules mixed in mode={mode!r}; use ' \
                  "mode='sequential', or leave the hook out"


def hook_classes(hook: dict, scope: str | None) -> list:
    """Return the classes that a hook's `type` can mean, be it a name or a class."""
    kind = hook.get('type')
    return [cls for _, cls in resolve(kind, scope or 'mmengine')] if isinstance(kind, str) else [kind]


def hooks_of(cfg: Config) -> Iterator[tuple[str, dict]]:
    """(place, hook) of the config; a default hook may be None."""
    yield from ((f'custom_hooks.{i}', hook) for i, hook in enumerate(cfg.get('custom_hooks') or []))
    yield from ((f'default_hooks.{name}', hook) for name, hook in (cfg.get('default_hooks') or {}).items() if hook)
