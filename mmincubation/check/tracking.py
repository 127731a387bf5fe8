"""Run training steps on shapes, without data and memory, and count the bytes that they would need."""
import logging
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmincubation.vit.transformer import attention_as_on_gpus

aten = torch.ops.aten


class LiveBytes(TorchDispatchMode):
    """Count the bytes of all tensor storages that are created while this mode is active and are still alive.

    `live` is the count now, `peak` its maximum since `restart`. Views share a storage and count once.
    """

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def restart(self) -> int:
        """Begin a new peak; return the bytes alive now."""
        self.peak = self.live
        return self.live

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in tree_leaves(out):
            if isinstance(value, Tensor) and value.device.type != 'meta':
                self._add(value.untyped_storage())
        return out

    def _add(self, storage) -> None:
        key = storage._cdata
        if key not in self._known:
            self._known.add(key)
            self.live += storage.nbytes()
            self.peak = max(self.peak, self.live)
            # Runs when the last tensor of this storage is gone.
            weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


class MostSelected(TorchDispatchMode):
    """Answer operators whose result depends on values as if everything were selected, which needs most memory.

    Masks select all, `nonzero` finds all, nms keeps all, a tensor read as a number is 1 (or True). Detection heads
    then run on shapes alone; their samplers limit what is selected, as in training.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = _ANSWERS.get(func)
        return answer(func, *args, **(kwargs or {})) if answer else func(*args, **(kwargs or {}))


def _number(func, tensor: Tensor):
    return tensor.dtype.is_floating_point and 1. or tensor.dtype == torch.bool or 1


def _all_places(func, tensor: Tensor) -> Tensor:
    return tensor.new_zeros((tensor.numel(), tensor.dim()), dtype=torch.long)


def _all_kept(func, boxes: Tensor, *args) -> Tensor:
    return boxes.new_zeros(len(boxes), dtype=torch.long)


def _all_masked(func, tensor: Tensor, mask: Tensor) -> Tensor:
    return tensor.new_empty(torch.broadcast_shapes(tensor.shape, mask.shape)).flatten()


def _all_different(func, tensor: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor, Tensor]:
    flat = tensor.flatten()
    return flat.clone(), flat.new_zeros(len(flat), dtype=torch.long), flat.new_ones(len(flat), dtype=torch.long)


def _index_all(func, tensor: Tensor, indices: list, *args):
    """Replace each mask among the indices by the places of all its elements."""
    places = []
    for index in indices:
        masked = index is not None and index.dtype in (torch.bool, torch.uint8)
        places += [index.new_zeros(index.numel(), dtype=torch.long)] * index.dim() if masked else [index]
    return func(tensor, places, *args)


def _index_put(func, tensor: Tensor, indices: list, values: Tensor, *args):
    return _index_all(func, tensor, indices, values, *args)


_ANSWERS = {
    aten._local_scalar_dense.default: _number,
    aten.nonzero.default: _all_places,
    aten.masked_select.default: _all_masked,
    aten._unique2.default: _all_different,
    aten.index.Tensor: _index_all,
    aten.index_put.default: _index_put,
    aten.index_put_.default: _index_put,
    aten._index_put_impl_.default: _index_put,
}


_NUMPY = {torch.float32: np.float32, torch.int64: np.int64, torch.bool: np.bool_, torch.uint8: np.uint8}


class PlainCopies(TorchFunctionMode):
    """Replace operations that need real memory: `numpy` gives zeros, a deep copy is a clone.

    mmdet cuts its mask targets in numpy. torch's deep copy would also copy the mode of the tensor, which corrupts
    memory.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is Tensor.numpy:
            return np.zeros(tuple(args[0].shape), _NUMPY[args[0].dtype])
        if func is Tensor.__deepcopy__:
            return args[0].detach().clone()
        return func(*args, **(kwargs or {}))


@contextmanager
def _no_tracebacks() -> Iterator[None]:
    """Let torch not print the traceback of an error that it raises as well."""
    log = logging.getLogger('torch._subclasses.fake_tensor')
    was, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = was


@contextmanager
def shapes_only() -> Iterator[LiveBytes]:
    """Give tensors shapes but no memory while the context is open.

    The context gives the counter of the bytes that the tensors would have.
    """
    import torchvision  # noqa: F401  registers torch.ops.torchvision
    _ANSWERS.setdefault(torch.ops.torchvision.nms.default, _all_kept)
    with _no_tracebacks(), FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as counter, \
            MostSelected(), PlainCopies(), attention_as_on_gpus():
        yield counter
