"""Child registries: `type='mmincubation.X'` resolves in any MM config without `custom_imports`."""
from collections.abc import Iterator

from mmengine import registry as root

SCOPE = 'mmincubation'


def _child(name: str, *places: str) -> root.Registry:
    return root.Registry(
        name.lower(), parent=getattr(root, name), scope=SCOPE, locations=[f'{SCOPE}.{place}' for place in places])


# Each registry imports the modules of its places at its first lookup.
MODELS = _child('MODELS', 'models', 'incubation', 'downstream')
DATASETS = _child('DATASETS', 'datasets.classification', 'datasets.checked')
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'datasets.samplers')
TRANSFORMS = _child('TRANSFORMS', 'datasets.crops')
METRICS = _child('METRICS', 'models', 'downstream')
HOOKS = _child('HOOKS', 'hooks', 'recovery')
LOG_PROCESSORS = _child('LOG_PROCESSORS', 'hooks')
LOOPS = _child('LOOPS', 'resumable', 'incubation')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'vit')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine.optim')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine.optim')


def dicts_in(node, place: str) -> Iterator[tuple[str, dict]]:
    """Yield each dict in `node`, a config's value at the dotted `place`, with its own dotted place."""
    if isinstance(node, dict):
        yield place, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from dicts_in(value, f'{place}.{key}')


def kind_of(node: dict) -> str:
    """Return the `type` of a node of a config without its scope."""
    return str(node.get('type')).rpartition('.')[2]


def is_pretrained(init) -> bool:
    """Return whether an entry of `init_cfg` loads a weight file."""
    return isinstance(init, dict) and kind_of(init) == 'Pretrained'


def pretrained_of(init_cfg) -> str | None:
    """Return the weight file, or the name or address of one, in an `init_cfg` or a list of them; None without one."""
    given = init_cfg if isinstance(init_cfg, list | tuple) else [init_cfg]
    return next((init['checkpoint'] for init in given if is_pretrained(init) and init.get('checkpoint')), None)


def nested_datasets(dataset: dict) -> Iterator[dict]:
    """Yield a data set's dict and those of all data sets that it wraps (`dataset`, `datasets`)."""
    yield dataset
    inner = dataset.get('datasets') or [dataset.get('dataset')]
    for wrapped in inner:
        if isinstance(wrapped, dict):
            yield from nested_datasets(wrapped)


def leaf_datasets(dataset: dict, place: str = 'dataset') -> Iterator[tuple[str, dict]]:
    """Yield (place, config) of the data sets that read files: the config itself, or those that it wraps."""
    if isinstance(dataset.get('dataset'), dict):
        yield from leaf_datasets(dataset['dataset'], f'{place}.dataset')
    elif isinstance(dataset.get('datasets'), list | tuple):
        for i, inner in enumerate(dataset['datasets']):
            yield from leaf_datasets(inner, f'{place}.datasets.{i}')
    elif dataset.get('type'):
        yield place, dataset
