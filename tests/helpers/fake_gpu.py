"""A GPU that is not there: tensors of shapes alone on `cuda`, and all that a host would wait for.

What holds and what does not is in CONTRIBUTING.md.
"""
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmincubation.benchmark.host_syncs import MASKED, PACKAGES, kind_of_sync
from mmincubation.check.tracking import shapes_only
from mmincubation.recovery.divergence import FiniteGuard

aten = torch.ops.aten
COPIES = {(True, False): 'to the host', (False, True): 'to the device'}


def on_gpu(value) -> bool:
    return isinstance(value, Tensor) and value.device.type == 'cuda'


class Watch(TorchDispatchMode):
    """Counts syncs in `found`, by (module and function that asks, kind); refuses operators on two devices.

    Kinds are those of `host_syncs`, copies that a host waits for, and `index`: numbers on the host that index a tensor
    on the device, which torch copies first. Asynchronous copies to the device are none.
    """

    def __init__(self):
        super().__init__()
        self.found = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        on_device = any(map(on_gpu, tensors))
        kind = kind_of_sync(func, args) if on_device else None
        if func in (aten._to_copy.default, aten.copy_.default):
            kind = self._copied(func, args, kwargs)
        elif on_device and any(not on_gpu(t) and t.dim() for t in tensors):
            if func not in MASKED or not on_gpu(args[0]):
                raise RuntimeError(f'{func}: some tensors are on the CPU, others on the GPU')
            kind = kind or 'index'
        if kind:
            self.found[asking(), kind] += 1
        if func is aten._local_scalar_dense.default and asking().startswith(f'{FiniteGuard.__module__} '):
            return 0.  # its flag: all is finite
        return func(*args, **kwargs)

    def _copied(self, func, args: tuple, kwargs: dict) -> str | None:
        if func is aten.copy_.default:
            target, source, waits = on_gpu(args[0]), on_gpu(args[1]), not (args[2:] or [kwargs.get('non_blocking')])[0]
        else:
            source, device = on_gpu(args[0]), kwargs.get('device')
            target = source if device is None else torch.device(device).type == 'cuda'
            waits = not kwargs.get('non_blocking')
        return COPIES.get((source, target)) if waits else None


class Refuse(TorchFunctionMode):
    """Raises what torch raises on a GPU: for numpy, and for draws by a generator of the other device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func in (Tensor.numpy, Tensor.__array__) and on_gpu(args[0]):
            raise TypeError("can't convert cuda tensor to numpy")
        generator = kwargs.get('generator')
        if generator is not None and isinstance(args[0], Tensor) and on_gpu(args[0]) != generator.on_gpu:
            raise RuntimeError('the generator is on the other device')
        out = func(*args, **kwargs)
        if func == Tensor.data.__set__ and isinstance(args[0], FakeTensor):
            args[0].fake_device = args[1].device  # torch forgets it
        return out


class Generator(torch.Generator):
    """On no device that is not there, but knows which it should be on."""

    def __new__(cls, device='cpu'):
        return super().__new__(cls, 'cpu')

    def __init__(self, device='cpu'):
        self.on_gpu = torch.device(device).type == 'cuda'

    def manual_seed(self, seed: int) -> 'Generator':
        super().manual_seed(seed)
        return self


class Event:
    """Of a stream in which everything has happened."""

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        pass


def asking() -> str:
    """Module and function of the innermost caller, of packages that run on the device."""
    frame = sys._getframe(2)
    while frame:
        name = frame.f_globals.get('__name__', '')
        if name.split('.')[0] in (*PACKAGES, 'timm', 'tests') and name not in (__name__, shapes_only.__module__):
            return f'{name} {frame.f_code.co_name}'
        frame = frame.f_back
    return 'elsewhere'


@contextmanager
def fake_gpu() -> Iterator[Counter]:
    """Let `cuda` be a device of shapes; the context gives the syncs so far, by (who asks, kind)."""
    empty = torch.empty
    watch = Watch()

    def unpinned(*args, pin_memory=False, **kwargs):
        return empty(*args, **kwargs)

    with ExitStack() as stack:
        for name, stand_in in (('torch.Generator', Generator), ('torch.cuda.Event', Event), ('torch.empty', unpinned),
                               ('mmengine.device.utils.DEVICE', 'cuda'),
                               ('torch.cuda.is_bf16_supported', lambda *args, **kwargs: True),
                               ('torch.cuda.amp.common.amp_definitely_not_available', lambda: False)):
            stack.enter_context(patch(name, stand_in))
        for mode in (shapes_only(), watch, Refuse()):
            stack.enter_context(mode)
        yield watch.found
