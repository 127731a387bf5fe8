"""Which sections a config must have, and of which kind their values are."""
from collections.abc import Iterator

from mmengine.config import Config

from .models import is_incubation

TRIOS = {  # mmengine takes all three or none
    'train': ('train_dataloader', 'train_cfg', 'optim_wrapper'),
    'val': ('val_dataloader', 'val_cfg', 'val_evaluator'),
    'test': ('test_dataloader', 'test_cfg', 'test_evaluator'),
}
DICT, LIST, EITHER, TEXT = (dict, ), (list, tuple), (dict, list, tuple), (str, )
KINDS = {
    **dict.fromkeys(('model', 'data_preprocessor', 'model_wrapper_cfg', 'optim_wrapper', 'auto_scale_lr',
                     'default_hooks', 'env_cfg', 'log_processor', 'visualizer', 'randomness', 'tta_model'), DICT),
    **dict.fromkeys([f'{kind}_{part}' for kind in TRIOS for part in ('dataloader', 'cfg')], DICT),
    **dict.fromkeys(('custom_hooks', 'tta_pipeline'), LIST),
    **dict.fromkeys(('val_evaluator', 'test_evaluator', 'param_scheduler'), EITHER),
    **dict.fromkeys(('work_dir', 'load_from', 'default_scope', 'experiment_name'), TEXT),
}
WORDS = {DICT: 'a dict', LIST: 'a list', EITHER: 'a dict or a list of dicts', TEXT: 'text'}
OF_DICTS = ('custom_hooks', 'default_hooks', 'val_evaluator', 'test_evaluator', 'param_scheduler')


def kinds_of(cfg: Config | dict, mode: str) -> list[str]:
    """Which of train, val and test a mode, `'train'` or `'test'`, uses the data of."""
    return ['test'] if mode == 'test' else ['train'] + ['val'] * (cfg.get('val_cfg') is not None)


def missing_problems(cfg: Config, mode: str) -> Iterator[str]:
    """One line that names what the mode, `'train'` or `'test'`, cannot do without."""
    if missing := [key for key in ('model', *TRIOS[mode]) if cfg.get(key) is None]:
        yield f'the config cannot be {dict(train="trained", test="tested")[mode]}: it has no {", ".join(missing)}'


def section_problems(cfg: Config, mode: str) -> Iterator[str]:
    """Sections of the wrong kind, without a part that each must have, or without the sections beside them.

    What passes can be changed by the options of the tools, and read by the other checks.
    """
    for key, kinds in KINDS.items():
        yield from _wrong_kind(key, cfg.get(key), kinds)
    for key in OF_DICTS:
        for place, value in _items(key, cfg.get(key)):
            yield from _wrong_kind(place, value, DICT)
            if key.endswith('hooks') and isinstance(value, dict) and 'type' not in value:
                yield f'{place}.type is missing: write which hook it is'
    yield from _trio_problems(cfg, mode)
    for kind in kinds_of(cfg, mode):
        yield from _loader_problems(f'{kind}_dataloader', cfg.get(f'{kind}_dataloader'))
    if isinstance(cfg.get('model'), dict) and 'type' not in cfg.model:
        yield 'model.type is missing: write which model it is'
    yield from _wrapper_problems(cfg.get('optim_wrapper'))
    yield from _phases_problems(cfg)


def _wrong_kind(place: str, value, kinds: tuple[type, ...]) -> Iterator[str]:
    """None stands for a section that is left out."""
    if value is not None and not isinstance(value, kinds):
        yield f'{place}={value!r:.60}: give {WORDS[kinds]}'


def _items(place: str, value) -> list[tuple[str, object]]:
    """(place, value) of what a list, or the dict `default_hooks`, holds."""
    if isinstance(value, LIST):
        return [(f'{place}.{i}', item) for i, item in enumerate(value)]
    return [(f'{place}.{key}', item) for key, item in value.items()] if place == 'default_hooks' and isinstance(
        value, dict) else []


def _trio_problems(cfg: Config, mode: str) -> Iterator[str]:
    """The mode's own three are `missing_problems`' business."""
    for kind, keys in TRIOS.items():
        missing = [key for key in keys if cfg.get(key) is None]
        if kind != mode and 0 < len(missing) < len(keys):
            yield f'{", ".join(missing)}: missing beside {", ".join(k for k in keys if k not in missing)}; ' \
                  'give all three, or none'


def _loader_problems(place: str, loader) -> Iterator[str]:
    if not isinstance(loader, dict):
        return
    for key in ('dataset', 'sampler'):
        if loader.get(key) is None:
            yield f'{place}.{key} is missing: write which one the dataloader takes'
        yield from _wrong_kind(f'{place}.{key}', loader.get(key), DICT)
    yield from _count_problems(f'{place}.batch_size', loader.get('batch_size'), 'images')


def _wrapper_problems(wrapper) -> Iterator[str]:
    if isinstance(wrapper, dict):
        if not {'optimizer', 'constructor'} & set(wrapper):
            yield 'optim_wrapper.optimizer is missing: write which optimizer it is'
        yield from _wrong_kind('optim_wrapper.optimizer', wrapper.get('optimizer'), DICT)
        yield from _count_problems(
            'optim_wrapper.accumulative_counts', wrapper.get('accumulative_counts'), 'iterations')


def _phases_problems(cfg: Config) -> Iterator[str]:
    if not is_incubation(cfg):
        return
    place, phases = 'train_cfg.phases', cfg.train_cfg.get('phases')
    yield from _wrong_kind(place, phases, DICT)
    for name, phase in phases.items() if isinstance(phases, dict) else ():
        if not isinstance(phase, dict):
            yield f'{place}.{name}={phase!r:.60}: give a dict'
            continue
        yield from _wrong_kind(f'{place}.{name}.optim_wrapper', phase.get('optim_wrapper'), DICT)
        yield from _wrong_kind(f'{place}.{name}.param_scheduler', phase.get('param_scheduler'), EITHER)
        if 'epochs' in phase and (not isinstance(phase.epochs, int) or phase.epochs < 0):
            yield f'{place}.{name}.epochs={phase.epochs!r:.60}: give a number of epochs, 0 or more'


def _count_problems(place: str, value, unit: str) -> Iterator[str]:
    if value is not None and (not isinstance(value, int) or value < 1):
        yield f'{place}={value!r:.60}: give a number of {unit}, 1 or more'
