"""Architecture and phases of a config."""
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from mmengine.config import Config

from mmincubation.incubation.phases import incubated_modules, read_phases, select_phases, valid_mode
from mmincubation.incubation.recipe import valid_recipe
from mmincubation.incubation.schedules import require_like_upstreams, schedules_of
from mmincubation.incubation.start import valid_start
from mmincubation.incubation.weights import missing_weights
from mmincubation.registry import dicts_in
from mmincubation.vit import Arch, Division

from .signatures import required, resolve


def model_problems(cfg: Config) -> Iterator[str]:
    """Architectures of our models, and their division into modules."""
    for place, model in dicts_in(cfg.get('model'), 'model'):
        kind = str(model.get('type'))
        if not kind.startswith('mmincubation.'):
            continue
        if 'arch' not in model:
            if any('arch' in required(cls) for _, cls in resolve(kind, 'mmincubation')):
                yield f'{place}.arch is missing: {kind} needs it'
            continue
        arch = yield from _read(f'{place}.arch', Arch.parse, model['arch'])
        if arch is not None and kind.endswith('IncubationModel'):
            yield from _read(f'{place}.modules', division_of, model)


def incubation_problems(cfg: Config, ranks: int | None) -> Iterator[str]:
    """Recipe, start, mode and phases of an IncubationLoop on `ranks` processes, None if that is not known."""
    if not is_incubation(cfg):
        return
    loop, model = cfg.train_cfg, cfg.model
    recipe = yield from _read('train_cfg.recipe', valid_recipe, loop.get('recipe', 'clean'))
    yield from _read('train_cfg.start', valid_start, loop.get('start', 'random'))
    try:
        division = division_of(model)
    except (ValueError, TypeError, AttributeError):  # `model_problems` says so
        return
    modules = len(division)
    mode = yield from _read('train_cfg.mode', valid_mode, loop.get('mode', 'sequential'), modules, ranks or modules)
    if mode is not None:
        every = yield from _read('train_cfg.phases', read_phases, loop.phases, modules, mode)
        phases = every and (yield from _read('train_cfg.phase', select_phases, every, loop.get('phase')))
        if phases and loop.get('phase') and loop.get('weights_dir'):  # of a phase alone
            yield from filter(None, [missing_weights(loop.phase, incubated_modules(every), Path(loop.weights_dir))])
        if phases and recipe:
            yield from _read('param_scheduler', schedules_of, phases, cfg.get('param_scheduler') or [], recipe)
            for phase in phases if mode == 'joint' else []:
                yield from _read('train_cfg.recipe', require_like_upstreams, recipe, division, phase.subphases)


def is_incubation(cfg: Config) -> bool:
    """Whether the config trains by an IncubationLoop."""
    loop = cfg.get('train_cfg')
    return isinstance(loop, dict) and str(loop.get('type')).endswith('IncubationLoop')


def division_of(model: dict) -> Division:
    """Return the division of an IncubationModel, from its config.

    Raises:
        ValueError: the architecture or the modules are wrong.
    """
    return Division.of(Arch.parse(model.arch).depth, model.get('modules', 4), model.get('meta_depth', 1))


def _read(place: str, reader: Callable, *given) -> Generator[str, None, object]:
    """Return what `reader` makes of the given values, or None after a line that says why it refuses them."""
    try:
        return reader(*given)
    except ValueError as error:  # written for users, with the place
        yield from str(error).splitlines()
    except TypeError as error:  # Python's own
        yield f'{place}: {error}'
    return None
