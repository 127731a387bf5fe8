"""Types and keys of every dict in a config, against the classes they name."""
import inspect
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from difflib import get_close_matches
from importlib import import_module

from .packages import missing_package, needed
from .signatures import (
    accepted,
    boolean,
    is_scope,
    mentions,
    nearest,
    numeric,
    required,
    resolve,
    unknown_type,
)

# Read by the Runner from its config though no parameter of it, or by the tools (the second line).
MORE_KEYS = ('runner_type', 'model_wrapper_cfg', 'find_unused_parameters', 'sync_bn', 'activation_checkpointing',
             'efficient_conv_bn_eval', 'compile', 'custom_imports', 'tta_model', 'tta_pipeline', 'experiment',
             'data_errors', 'max_data_errors', 'load_from_fresh')
OWN_KEYS = {'type', '_scope_', '_delete_'}  # mmengine's
# By kind (name of the root registry): keys that its builder takes out before the class sees them, and parameters that
# the builder gives. Only kinds in GIVEN have a builder that gives a fixed set: there, missing ones are certain.
TAKEN = {
    'hook': {'priority'},
    'model': {'requires_grad'},  # of norm layers
    'op': {'class_agnostic', 'split_thr', 'max_num'},  # of nms, by mmcv's batched_nms
    'optim_wrapper': {'constructor', 'paramwise_cfg'},
    'parameter scheduler': {'convert_to_iter_based', 'epoch_length'},
    'weight initializer': {'override', 'layer', 'name'},
}
GIVEN = {
    'dataset': set(),
    'hook': set(),
    'loop': {'runner', 'dataloader', 'evaluator'},
    'metric': set(),
    'parameter scheduler': {'optimizer'},
    'transform': set(),
}
DEFAULT_TYPES = {'val_cfg': 'ValLoop', 'test_cfg': 'TestLoop', 'optim_wrapper': 'OptimWrapper',
                 'log_processor': 'LogProcessor', 'visualizer': 'Visualizer'}
PLAIN_KEYS = {
    'auto_scale_lr': {'enable', 'base_batch_size'},
    'env_cfg': {'cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit'},
}
DEFAULT_CONSTRUCTOR = 'DefaultOptimWrapperConstructor'
DEFAULT_PARAMWISE = {'custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult', 'dwconv_decay_mult',
                     'flat_decay_mult', 'bypass_duplicate', 'dcn_offset_lr_mult'}
COMPILED = ('soft_nms', 'nms_match', 'nms_rotated', 'nms_quadri', 'carafe', 'CARAFE', 'FPN_CARAFE', 'PSAHead')
NEAR = 0.88  # difflib's ratio: one letter in five or more
LOADER_KEYS = {'num_batch_per_epoch', 'disable_subprocess_warning'}


def runner_keys() -> set[str]:
    """The top-level keys that the Runner or the tools read."""
    from mmengine.runner import Runner
    return set(inspect.signature(Runner).parameters) - {'cfg'} | set(MORE_KEYS)


def type_problems(cfg: dict) -> Iterator[str]:
    """One line for each unknown type and each unknown or missing key, with its dotted place."""
    scope = cfg.get('default_scope') or 'mmengine'
    if not is_scope(scope):
        yield f'default_scope: {missing_package(scope, scope)}'
        return
    keys = runner_keys()
    for key in cfg:
        if key in keys:
            yield from _walk(cfg[key], key, scope, ())
    yield from _plain_problems(cfg)
    for place, wrapper in optim_wrappers(cfg):
        if place != 'optim_wrapper':
            yield from _walk(wrapper, place, scope, ())
        yield from _constructor_problems(wrapper, place, scope)


def _walk(node, place: str, scope: str, owners: tuple) -> Iterator[str]:
    """`owners` are the classes of the enclosing dicts."""
    if isinstance(node, list | tuple):
        for i, item in enumerate(node):
            yield from _walk(item, f'{place}.{i}', scope, owners)
    elif isinstance(node, dict):
        scope = node.get('_scope_', scope)
        name = node.get('type') or _default_type(node, place)
        found = []
        if isinstance(name, str):
            found = resolve(name, scope)
            if name in COMPILED and hasattr(import_module('mmcv._ext'), 'MissingOp'):  # ours stands for it
                yield f'{place}.type: {name} needs compiled ops of mmcv, which are not installed; choose another'
            elif found and (package := needed(name)):
                yield f'{place}.type: {missing_package(name, package)}'
            elif found:
                yield from _key_problems(node, place, name, found, owners)
            elif not any(mentions(owner, name) for owner in owners):
                yield f'{place}.type: {unknown_type(name, scope)}'
        for key, value in node.items() if name != 'Albu' else ():  # its types are albumentations'
            yield from _walk(value, f'{place}.{key}', scope, (*owners, *(obj for _, obj in found)))


def _default_type(node: dict, place: str) -> str | None:
    """The class that the Runner takes where a dict names none."""
    if place == 'train_cfg':
        return 'EpochBasedTrainLoop' if node.get('by_epoch', True) else 'IterBasedTrainLoop'
    if place == 'optim_wrapper' and 'optimizer' not in node:  # several wrappers, for several optimizers
        return None
    return DEFAULT_TYPES.get(place)


def _key_problems(node: dict, place: str, name: str, found: list[tuple[str, Callable]], owners: tuple) -> list[str]:
    """Problems of the reading of `name` that fits best."""
    return min((_problems_of(node, place, name, kind, obj, owners) for kind, obj in found), key=len)


def _problems_of(node: dict, place: str, name: str, kind: str, obj: Callable, owners: tuple) -> list[str]:
    valid, others = accepted(obj)
    allowed = valid | OWN_KEYS | TAKEN.get(kind, set()) | ({'by_epoch'} if 'type' not in node else set())
    unknown = [k for k in node if k not in allowed and not any(mentions(owner, k) for owner in owners)]
    if others:  # only what is surely a slip of the pen
        unknown = [k for k in unknown if not mentions(obj, k) and get_close_matches(k, valid, 1, NEAR)]
    texts = [f'{place}.{k}={node[k]!r:.60}: give a number' for k in numeric(obj) & set(node)
             if isinstance(node[k], str)]
    texts += [f'{place}.{k}={node[k]!r:.60}: give True or False' for k in boolean(obj) & set(node)
              if isinstance(node[k], str)]
    if unknown or texts or kind not in GIVEN:
        return [*(unknown_key(f'{place}.{k}', valid, name) for k in unknown), *sorted(texts)]
    return [f'{place}.{k} is missing: {name} needs it' for k in sorted(required(obj) - GIVEN[kind] - set(node))]


def unknown_key(place: str, valid: Iterable[str], owner: str) -> str:
    """That the last part of `place` is none of the `valid` keys of `owner`, with the nearest or, if none is, all."""
    near = nearest(place.rpartition('.')[2], {k: k for k in valid})
    return f'{place}: {owner} has no such key{near or "; it takes " + (", ".join(sorted(valid)) or "none")}'


def _plain_problems(cfg: dict) -> Iterator[str]:
    """Dicts without a type that the Runner reads itself."""
    from mmengine.runner import Runner
    from torch.utils.data import DataLoader
    loader = LOADER_KEYS | set(inspect.signature(DataLoader).parameters)
    places = PLAIN_KEYS | {f'{mode}_dataloader': loader for mode in ('train', 'val', 'test')}
    places['randomness'] = set(inspect.signature(Runner.set_randomness).parameters) - {'self'}
    for place, valid in places.items():
        node = cfg
        for key in place.split('.'):
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, dict):
            yield from (unknown_key(f'{place}.{k}', valid, place) for k in node if k not in valid | OWN_KEYS)


def optim_wrappers(cfg: dict) -> Iterator[tuple[str, dict]]:
    """(place, optimiser wrapper) of the run and, each as it will be built, of the phases of an incubation."""
    from mmengine.config import Config
    run, place = cfg.get('optim_wrapper') or {}, 'train_cfg.phases.{}.optim_wrapper'
    yield 'optim_wrapper', run
    for name, phase in ((cfg.get('train_cfg') or {}).get('phases') or {}).items():
        if isinstance(phase, dict) and phase.get('optim_wrapper'):
            yield place.format(name), Config._merge_a_into_b(deepcopy(phase['optim_wrapper']), deepcopy(run))


def _constructor_problems(wrapper: dict, place: str, scope: str) -> Iterator[str]:
    """That the optimiser's constructor exists, and what it says to its `paramwise_cfg`: each has keys of its own."""
    name = wrapper.get('constructor', DEFAULT_CONSTRUCTOR)
    found = resolve(name, scope) if isinstance(name, str) else [('', name)]
    paramwise, place = wrapper.get('paramwise_cfg'), f'{place}.'
    if not found:
        yield f'{place}constructor: {unknown_type(name, scope)}'
    elif name == DEFAULT_CONSTRUCTOR:
        place += 'paramwise_cfg'
        yield from (unknown_key(f'{place}.{k}', DEFAULT_PARAMWISE, place)
                    for k in paramwise or () if k not in DEFAULT_PARAMWISE | OWN_KEYS)
    elif hasattr(found[0][1], 'paramwise_problems'):
        yield from found[0][1].paramwise_problems(paramwise, f'{place}paramwise_cfg')
