"""mmdet's COCO metric with classes by name, and with a faster evaluator than pycocotools."""
import math
from collections.abc import Callable
from functools import cache
from types import FunctionType

import numpy as np
from mmengine.logging import print_log

from mmincubation.compat.coco_api import mend_coco
from mmincubation.datasets.coco import coco_class
from mmincubation.registry import METRICS

from .coco_details import details_and_evidence
from .fast_eval import FastEval, in_class_order


def _by_class(evaluator: type) -> type:
    """Return a COCOeval of pycocotools or mmdet whose tables are in the order of `params.catIds`."""

    class ByClass(evaluator):

        def evaluate(self) -> None:
            self.params.asked = list(self.params.catIds)  # it sorts them
            self.params.iouThrs = np.atleast_1d(self.params.iouThrs)  # it compares them with ==
            super().evaluate()

        def summarize(self) -> None:
            super().summarize()
            self.eval = in_class_order(self.eval, self.params)

    return ByClass


def _with_names(function: FunctionType, **names) -> FunctionType:
    """Return a copy of the function that sees other objects under these global names."""
    made = FunctionType(function.__code__, function.__globals__ | names, function.__name__, function.__defaults__,
                        function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _kept(kind: type, made: list) -> Callable:
    """Return a function that makes what the class does, and adds it to a list."""

    def make(*args):
        made.append(kind(*args))
        return made[-1]

    return make


def _truth(source: str):
    """Read the truth with annotation ids from 1: pycocotools never matches an object whose id is 0."""
    coco = coco_class()(source)
    coco.dataset['annotations'] = [dict(dict(iscrowd=0), **dict(entry, id=number))
                                   for number, entry in enumerate(coco.dataset.get('annotations') or (), 1)]
    coco.createIndex()
    coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs
    return coco


@cache
def named_class() -> type:
    """Create the class on its first use, so that mmdet is imported only if a config names it."""
    from mmdet.evaluation import CocoMetric
    from mmdet.evaluation.metrics import coco_metric as stock
    mend_coco()

    class NamedCocoMetric(CocoMetric):
        """mmdet's CocoMetric whose labels mean classes by name, whatever the order of the file's categories.

        The ids of the truth's annotations are written anew from 1. With `classwise` and several metrics the classes'
        APs are `bbox_<class>_precision` and `segm_<class>_precision`; mmdet writes both under one key, and keeps the
        last.
        """
        __init__ = _with_names(CocoMetric.__init__, COCO=_truth)
        kinds = dict(COCOeval=_by_class(stock.COCOeval), COCOevalMP=_by_class(stock.COCOevalMP))
        details, evidence = {}, None  # of the last evaluation, on the main rank, for `evidence.py`

        def measure(self, results: list) -> dict[str, float]:
            """Return mmdet's numbers, and keep the evaluators that it makes."""
            kinds = {name: _kept(kind, self.evaluators) for name, kind in self.kinds.items()}
            return _with_names(CocoMetric.compute_metrics, COCO=_truth, **kinds)(self, results)

        def compute_metrics(self, results: list) -> dict[str, float]:
            """Return mmdet's numbers, and say which of them could not be measured."""
            self.evaluators = []
            several = self.classwise and not self.format_only and len(self.metrics) > 1
            found = _each(self, results) if several else self.measure(results)
            names = [self._coco_api.cats[key]['name'] for key in self.cat_ids]
            self.details, self.evidence = details_and_evidence(self.evaluators, names)
            self.evaluators = []
            _say_unmeasured(self, found)
            return found

        @property
        def takes_last(self) -> bool:
            """Whether mAP counts the last of `proposal_nums`, as COCOevalMP does; pycocotools counts 100."""
            return self.use_mp_eval

    return NamedCocoMetric


def _say_unmeasured(metric, found: dict[str, float]) -> None:
    nothing = {key: _left_out_by(metric, key) for key, value in found.items() if value == -1 or math.isnan(value)}
    if absent := [key for key, reason in nothing.items() if not reason]:
        print_log(f'not measured, because the data have no such object: {", ".join(absent)}', 'current')
    for key, reason in nothing.items():
        if reason:
            print_log(f'not measured: {key}, because {reason}', 'current')


def _left_out_by(metric, key: str) -> str | None:
    """Return in words the setting by which a number is not measured; None if it is measured."""
    if key.endswith('_mAP') and 100 not in metric.proposal_nums and not metric.takes_last:
        return f'it counts 100 results of an image: add 100 to proposal_nums={list(metric.proposal_nums)}'
    for end, value in (('_mAP_50', 0.5), ('_mAP_75', 0.75)):
        if key.endswith(end) and value not in (given := np.atleast_1d(metric.iou_thrs).tolist()):
            return f'it needs an IoU of {value}: add {value} to iou_thrs={given}'
    return None


def _each(metric, results: list) -> dict[str, float]:
    """Return the numbers of a classwise metric, with the kind of AP in the key of each class."""
    kinds, found = metric.metrics, {}
    try:
        for kind in kinds:
            metric.metrics = [kind]
            found |= {f'{kind}_{key}' if key.endswith('_precision') else key: value
                      for key, value in metric.measure(results).items()}
    finally:
        metric.metrics = kinds
    return found


@cache
def fast_class() -> type:
    """Create the class on its first use, as `named_class` does."""

    class FastCocoMetric(named_class()):
        """NamedCocoMetric evaluated by `FastEval`, with the same options, keys and values."""
        kinds = dict(COCOeval=FastEval, COCOevalMP=FastEval)
        takes_last = False

    return FastCocoMetric


@METRICS.register_module(name='FastCocoMetric')
def fast_coco_metric(**options):
    """Return mmdet's CocoMetric with these options, evaluated by hotcoco: faster, with bitwise equal results.

    Labels mean classes by name. `use_mp_eval` has no effect, because hotcoco always uses all cores.
    """
    return fast_class()(**options)


@METRICS.register_module(name='NamedCocoMetric')
def named_coco_metric(**options):
    """Return mmdet's CocoMetric with these options, whose labels mean classes by name; pycocotools evaluates it.

    The tools put it in the place of a plain CocoMetric.
    """
    return named_class()(**options)


fast_coco_metric.makes, named_coco_metric.makes = fast_class, named_class  # whose keys a config may give
