"""MMIncubation: train a big vision Transformer as independently trained modules, in OpenMMLab style.

Importing the package is cheap (standard library only, no torch). It makes `mmcv.ops` importable where mmcv has no
compiled ops, and hence all of mmdet and mmseg; an installed compiled `mmcv._ext` wins. `load_model` is imported when it
is first used.
"""
from mmincubation.compat import ext_finder

__version__ = '0.1.0'
__all__ = ['load_model']

ext_finder.install()


def __getattr__(name: str):
    """Import what is public when it is asked for."""
    if name != 'load_model':
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from mmincubation.inference.predictor import load_model
    return load_model
