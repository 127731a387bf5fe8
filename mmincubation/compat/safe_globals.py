"""Load mmengine checkpoints with `torch.load(weights_only=True)`, the default since torch 2.6.

A Runner's checkpoint holds HistoryBuffers (mmengine's message hub), numpy arrays and numpy scalars. The classes of
numpy and mmengine themselves are not safe. `numpy.dtype` takes any flags from a file: a float64 that claims to hold
Python objects crashes the interpreter. `numpy.ndarray` can be built again while a tensor still uses its memory. And
HistoryBuffer pickles `builtins.getattr`. Small stand-ins are loaded under these names instead. They check their
arguments and build numbers only. `allow_mm_checkpoints` lists everything that a checkpoint may name and call.
"""
import argparse
import re
import sys
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import PurePosixPath
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch.utils.model_zoo import load_url

NUMERIC = re.compile(r'[biufc]\d{1,2}')  # numpy's codes of bool, int, unsigned, float and complex; no objects, no text

# What training scripts store beside their weights: settings, which are dicts of another name, and paths.
SETTINGS = (
    'yacs.config.CfgNode', 'fvcore.common.config.CfgNode', 'detectron2.config.config.CfgNode', 'easydict.EasyDict',
    'addict.addict.Dict', 'pytorch_lightning.utilities.parsing.AttributeDict',
    'lightning.pytorch.utilities.parsing.AttributeDict', 'lightning_fabric.utilities.data.AttributeDict',
    'lightning.fabric.utilities.data.AttributeDict')
PATHS = [f'{module}.{kind}Path' for module in ('pathlib', 'pathlib._local')
         for kind in ('Posix', 'Windows', 'PurePosix', 'PureWindows')]


def allow_mm_checkpoints() -> None:
    """Let `torch.load(weights_only=True)` read checkpoints of mmengine Runners and of other programs' scripts.

    `argparse.Namespace` is itself, SETTINGS become plain dicts, PATHS texts.

    Call it once per process before the first load; more calls change nothing. Numpy arrays outside of HistoryBuffers
    are loaded as a subclass of `numpy.ndarray`, which is saved as a plain array. Loading then raises UnpicklingError
    for numpy data that are not numbers and, as before, for every name that is not allowed.
    """
    stand_ins: list[tuple[Any, str]] = [
        (_History, 'mmengine.logging.history_buffer.HistoryBuffer'),
        (_history_method, 'builtins.getattr'),
        (_Array, 'numpy.ndarray'),
        (_Dtype, 'numpy.dtype'),
    ]
    for core in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # numpy 1.x, numpy 2.x
        stand_ins += [(_empty_array, f'{core}._reconstruct'), (_scalar, f'{core}.scalar')]
    stand_ins += [(_Settings, name) for name in SETTINGS] + [(_path, name) for name in PATHS]
    # Pairs of (class, name): the unpickler loads our class wherever a file has that name.
    torch.serialization.add_safe_globals([argparse.Namespace, *stand_ins])


def read_checkpoints_as_data(load_from_local: Callable) -> None:
    """Let mmengine's own loading, in this process, execute nothing: more calls change nothing.

    `load_from_local(filename, map_location)` reads local files. Those that mmengine downloads are read with
    weights_only, which torch hub leaves off and mmengine does not ask for. mmengine.runner.checkpoint must have been
    imported; nothing else of mmengine.runner need be there yet.
    """
    allow_mm_checkpoints()
    checkpoint = sys.modules['mmengine.runner.checkpoint']
    checkpoint.load_url = partial(load_url, weights_only=True)
    checkpoint.CheckpointLoader.register_scheme('', load_from_local, force=True)


class _Settings:
    """Stand for a dict of settings; what it was built from does not count, only its entries."""

    def __new__(cls, *args, **kwargs) -> OrderedDict:
        return OrderedDict()


def _path(*parts: str) -> str:
    return str(PurePosixPath(*parts))


class _Dtype:
    """A numeric numpy dtype, from its code and the byte order in its pickled state."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not isinstance(code, str) or not NUMERIC.fullmatch(code):
            raise UnpicklingError(f'a checkpoint may hold numpy numbers only, not dtype {code!r}')
        self.numpy = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        if state[1] not in ('<', '>', '|', '='):
            raise UnpicklingError(f'numpy dtype with byte order {state[1]!r}: the checkpoint is damaged')
        self.numpy = self.numpy.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that takes a pickled state once, so that its memory never changes while a view uses it."""

    def __new__(cls) -> '_Array':
        return super().__new__(cls, (0,), np.bool_)

    def __setstate__(self, state: tuple) -> None:
        if 'filled' in self.__dict__:
            raise UnpicklingError('a numpy array is built twice: the checkpoint is damaged or malicious')
        self.__dict__['filled'] = True
        version, shape, dtype, fortran, data = state
        super().__setstate__((version, shape, dtype.numpy, fortran, data))

    def __reduce__(self) -> tuple:
        return np.array(self).__reduce__()


def _empty_array(subtype: type, shape: tuple, code: bytes) -> _Array:
    """Stand for numpy's `_reconstruct`; shape and code are placeholders, the state follows."""
    return _Array()


def _scalar(dtype: _Dtype, data: bytes) -> np.generic:
    return np.frombuffer(data, dtype.numpy, count=1)[0]


class _History(HistoryBuffer):
    """A HistoryBuffer whose statistics are those of the installed mmengine, not the file's functions."""

    def __setstate__(self, state: dict) -> None:
        self.__class__ = HistoryBuffer
        self.__init__(state['_log_history'], state['_count_history'], state['max_length'])


def _history_method(owner: type, name: str) -> None:
    """Stand for getattr, with which mmengine pickles `HistoryBuffer.mean` and others; `_History` ignores the result."""
    if owner is not _History or name not in ('min', 'max', 'current', 'mean'):
        raise UnpicklingError(f'the checkpoint asks for attribute {name!r} of {owner!r}: refused, it is no weight')
