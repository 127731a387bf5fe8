"""Find host syncs in a training step: reads from the device, for which the host waits until the device is idle."""
import sys
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
SYNCING = {  # what a GPU cannot give without telling the host a number, or a number of results
    aten._local_scalar_dense.default: 'number',
    aten.nonzero.default: 'nonzero',
    aten._unique2.default: 'unique',
    aten.masked_select.default: 'mask',
}
MASKED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
COPIES = {Tensor.cpu: 'copy', Tensor.tolist: 'copy'}
PACKAGES = ('mmincubation', 'mmdet', 'mmseg', 'mmcv', 'mmengine')


class _Operators(TorchDispatchMode):
    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if kind := kind_of_sync(func, args):
            self.found[_place(), kind] += 1
        return func(*args, **(kwargs or {}))


class _Copies(TorchFunctionMode):
    def __init__(self, found: Counter):
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in COPIES:
            self.found[_place(), COPIES[func]] += 1
        return func(*args, **(kwargs or {}))


def kind_of_sync(func, args: tuple) -> str | None:
    """Return why a GPU's host would wait for an operator of torch with these arguments; None if it would not."""
    if func in MASKED and _waits_for_mask(*args[1:3]):
        return 'mask'
    return 'nms' if func.name() == 'torchvision::nms' else SYNCING.get(func)


def _waits_for_mask(indices: list, values: Tensor | None = None) -> bool:
    """Return whether a mask is among the indices, save where torch fills it with one number, without a sync."""
    given = [index for index in indices if index is not None]
    masks = [index for index in given if index.dtype in (torch.bool, torch.uint8)]
    fills = values is not None and len(given) == 1 and values.numel() == 1 and values.device.type == 'cpu'
    return bool(masks) and not fills


def _place() -> str:
    """Return file, line and function of the innermost caller in a package of this stack."""
    frame = sys._getframe(2)
    while frame:
        name = frame.f_globals.get('__name__', '')
        if name.split('.')[0] in PACKAGES and name != __name__:
            return f'{name}:{frame.f_lineno} {frame.f_code.co_name}'
        frame = frame.f_back
    return 'elsewhere'


def host_syncs(step: Callable[[], object]) -> Counter:
    """Return how many host syncs a call makes, by (place, kind), on any device.

    It counts what would be a sync on a GPU: numbers (`item`, a tensor in an `if`), results of unknown size (`nonzero`,
    masks as indices, `unique`, nms), and copies to the host.
    """
    found = Counter()
    with _Copies(found), _Operators(found):
        step()
    return found


def table(found: Counter) -> str:
    """Return the counts as a markdown table, most frequent first."""
    rows = [f'| {place} | {kind} | {number} |' for (place, kind), number in found.most_common()]
    return '\n'.join(['| where | what | times |', '|---|---|---|', *rows, f'| all | | {found.total()} |'])
