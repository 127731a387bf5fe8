"""MMIncubation: train a big vision Transformer as independently trained modules, in OpenMMLab style.

Importing the package is cheap (standard library only, no torch). It makes `mmcv.ops` importable where mmcv has no
compiled ops, and hence all of mmdet and mmseg; an installed compiled `mmcv._ext` wins.
"""
from mmincubation.compat import ext_finder

__version__ = '0.1.0'

ext_finder.install()
