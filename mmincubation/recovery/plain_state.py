"""Turn the attributes of an object into plain data that `torch.load(weights_only=True)` reads, and back."""
import hashlib
import inspect
import pickle
from collections import Counter, OrderedDict, defaultdict, deque

import numpy as np
import torch
from torch import Tensor, nn

SCALARS = (type(None), bool, int, float, complex, str, bytes)
CONTAINERS = {kind.__name__: kind for kind in (list, tuple, set, frozenset, deque, dict, OrderedDict, Counter,
                                               defaultdict)}
FACTORIES = {kind.__name__: kind for kind in (int, float, list, dict, set)}  # of a defaultdict


class NotPlain(TypeError):
    """A value is no plain data; the message is the name of its type."""


def encode(value):
    """Return a copy of numbers, text, arrays, tensors and containers of them, in which every tuple is (kind, more,
    content).

    Raises:
        NotPlain: it holds something else, or a tensor that is trained.
    """
    kind = type(value)
    if kind in SCALARS:
        return value
    if kind is Tensor and not value.requires_grad:
        return 'tensor', value.device.type != 'cpu', value.detach().to('cpu', copy=True)
    if isinstance(value, np.generic | np.ndarray) and value.dtype.kind in 'biufc':
        return 'array', isinstance(value, np.generic), np.array(value)
    if CONTAINERS.get(kind.__name__) is not kind:
        raise NotPlain(kind.__name__)
    more = getattr(value, 'maxlen', None)
    if kind is defaultdict:
        more = getattr(value.default_factory, '__name__', None)
        if value.default_factory not in (None, FACTORIES.get(more)):
            raise NotPlain(f'defaultdict of {more}')
    items = value.items() if isinstance(value, dict) else value
    return kind.__name__, more, [encode(list(item) if isinstance(value, dict) else item) for item in items]


def decode(stored, device: torch.device):
    """Return what `encode` was given; tensors from a GPU go to `device`."""
    if not isinstance(stored, tuple):
        return stored
    kind, more, content = stored
    if kind == 'tensor':
        return content.to(device if more else 'cpu', copy=True)
    if kind == 'array':
        return np.array(content)[()] if more else np.array(content)
    items = [decode(item, device) for item in content]
    if kind == 'deque':
        return deque(items, more)
    if kind == 'defaultdict':
        return defaultdict(FACTORIES.get(more), items)
    return CONTAINERS[kind](dict(items) if issubclass(CONTAINERS[kind], dict) else items)


def mark(value, known: set[int]):
    """Return a number or text that changes when `value`, which need not be plain, does.

    What has its `id` in `known` belongs to the run and not to the owner of the value: it counts as unchanged, as do
    functions, classes, and what cannot be pickled.
    """
    if id(value) in known or inspect.isroutine(value) or inspect.isclass(value):
        return None
    if isinstance(value, nn.Module):
        return _digest(sorted((name, id(t), t._version) for name, t in value.state_dict(keep_vars=True).items()))
    if isinstance(value, torch.Generator):
        return _digest(value.get_state().tolist())
    if isinstance(value, list | tuple | set | dict):
        items = value.items() if isinstance(value, dict) else value
        return _digest([mark(item, known) for item in items])
    try:
        if isinstance(value, Tensor):  # a pickle would name its place in memory
            data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            return _digest((str(value.dtype), tuple(value.shape), data.numpy().tobytes()))
        return _digest(value)
    except Exception:  # it holds a lock, a file: whatever cannot be pickled
        return mark(vars(value), known | {id(value)}) if hasattr(value, '__dict__') else None


def _digest(value) -> str:
    return hashlib.sha256(pickle.dumps(value)).hexdigest()
