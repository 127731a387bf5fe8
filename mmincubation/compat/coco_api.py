"""Mend pycocotools for mmdet: a run that detects nothing yet has an AP of 0, and reading a file says nothing."""
import sys
from functools import wraps

from mmengine.logging import print_log


def mend_coco() -> None:
    """Let `COCO.loadRes` take results without one detection, and keep its progress off the console.

    mmdet's metrics would log an error and give no metric at all, for which `save_best` and others then ask in vain.
    Nothing happens in a process without mmdet; more calls change nothing.
    """
    if 'mmdet' not in sys.modules:
        return
    from pycocotools import coco
    coco.print = _silent
    if not hasattr(coco.COCO.loadRes, '__wrapped__'):
        coco.COCO.loadRes = _taking_none(coco.COCO.loadRes)


def _silent(*_args, **_kwargs) -> None:
    """Take the place of `print` in pycocotools.coco."""


def _taking_none(load):

    @wraps(load)
    def load_results(self, found):
        if not isinstance(found, list) or found:
            return load(self, found)
        print_log('nothing is detected yet in any image', logger='current')
        empty = type(self)()
        empty.dataset = dict(self.dataset, annotations=[])
        empty.createIndex()
        return empty

    return load_results
