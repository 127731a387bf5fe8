"""Child registries, so that `type='mmincubation.X'` resolves in any MM config without `custom_imports`."""
from mmengine import registry as root

SCOPE = 'mmincubation'


def _child(name: str, *rooms: str) -> root.Registry:
    return root.Registry(
        name.lower(), parent=getattr(root, name), scope=SCOPE, locations=[f'{SCOPE}.{room}' for room in rooms])


MODELS = _child('MODELS', 'models', 'incubation', 'downstream')
# Not all of datasets/: the writers of the demo's data work without torch.
DATASETS = _child('DATASETS', 'datasets.classification', 'datasets.checked')
DATA_SAMPLERS = _child('DATA_SAMPLERS', 'datasets.samplers')
TRANSFORMS = _child('TRANSFORMS', 'datasets.crops')
METRICS = _child('METRICS', 'engine', 'downstream')
HOOKS = _child('HOOKS', 'engine')
LOG_PROCESSORS = _child('LOG_PROCESSORS', 'engine')
LOOPS = _child('LOOPS', 'exact', 'incubation')
WEIGHT_INITIALIZERS = _child('WEIGHT_INITIALIZERS', 'checkpoints')
MODEL_WRAPPERS = _child('MODEL_WRAPPERS', 'engine')
OPTIM_WRAPPERS = _child('OPTIM_WRAPPERS', 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('OPTIM_WRAPPER_CONSTRUCTORS', 'engine')
