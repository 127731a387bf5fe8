"""Hooks that cannot do their work in an incubation."""
from collections.abc import Iterator

from mmengine.config import Config

from .models import is_incubation


def hook_problems(cfg: Config) -> Iterator[str]:
    """One line for each hook that would mix what belongs to different phases or modules."""
    if not is_incubation(cfg):
        return
    mode = cfg.train_cfg.get('mode', 'sequential')
    for place, hook in _hooks(cfg):
        name = str(hook.get('type'))
        if name in ('EMAHook', 'mmengine.EMAHook'):
            yield "custom_hooks: mmengine's EMAHook would average over the phases of an incubation; write " \
                  "type='mmincubation.EMAHook', which averages fine-tuning"
        if name.endswith('EarlyStoppingHook') and mode in ('joint', 'parallel'):
            yield f'{place}: one EarlyStoppingHook sees the scores of all modules mixed in mode={mode!r}; use ' \
                  "mode='sequential', or leave the hook out"


def _hooks(cfg: Config) -> Iterator[tuple[str, dict]]:
    """(place, hook) of the config; a default hook may be None."""
    yield from ((f'custom_hooks.{i}', hook) for i, hook in enumerate(cfg.get('custom_hooks') or []))
    yield from ((f'default_hooks.{name}', hook) for name, hook in (cfg.get('default_hooks') or {}).items() if hook)
