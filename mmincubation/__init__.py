"""MMIncubation: train a big vision Transformer as independently trained modules, in OpenMMLab style.

Importing the package is cheap (standard library only, no torch). It makes `mmcv.ops` importable where mmcv has no
compiled ops, and hence all of mmdet and mmseg; an installed compiled `mmcv._ext` wins. mmengine, and with it the
inferencers of mmdet and mmseg, then reads checkpoints as data, and those of our runs. `load_model` is imported when it
is first used.
"""
from mmincubation.compat import ext_finder, on_import

__version__ = '0.1.0'
__all__ = ['load_model']


def __getattr__(name: str):
    """Import what is public when it is asked for."""
    if name != 'load_model':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from mmincubation.inference.predictor import load_model
    return load_model


def _load_from_local(filename: str, map_location=None) -> dict:
    """Read a checkpoint for mmengine; what that takes is imported with the first file."""
    from mmincubation.config.data_only import load_from_local
    return load_from_local(filename, map_location)


def _read_checkpoints_as_data() -> None:
    from mmincubation.compat.safe_globals import read_checkpoints_as_data
    read_checkpoints_as_data(_load_from_local)


ext_finder.install()
on_import.after_import('mmengine.runner.checkpoint', _read_checkpoints_as_data)
