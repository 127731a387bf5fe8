"""mmdet's COCO metric with classes by name, and with a faster evaluator than pycocotools."""
import math
import warnings
from collections.abc import Iterable
from functools import cache
from types import FunctionType

import numpy as np
from mmengine.logging import print_log

from mmincubation.compat.coco_api import mend_coco
from mmincubation.datasets.coco import coco_class
from mmincubation.registry import METRICS

TABLES = ('precision', 'recall', 'scores')


class FastEval:
    """`pycocotools.cocoeval.COCOeval` computed by hotcoco: faster, with bitwise equal results.

    `truth` and `results` are COCO objects of pycocotools, which do not change. Ids may be of any type that can be
    sorted, because hotcoco gets numbers from 1 in their place: so an annotation with the id 0, which pycocotools never
    matches, counts. `params`, `stats` and `eval` have pycocotools' names and shapes.
    """

    def __init__(self, truth, results, iou_type: str):
        import hotcoco
        from pycocotools.cocoeval import Params
        self.params = Params(iouType=iou_type)
        self._images, self._categories = numbered(truth.imgs), numbered(truth.cats)
        self.params.imgIds, self.params.catIds = [*self._images], [*self._categories]
        self._eval = hotcoco.COCOeval(*(hotcoco.COCO(self._plain(coco.dataset, iou_type == 'segm'))
                                        for coco in (truth, results)), iou_type)

    def _plain(self, content: dict, masks: bool) -> dict:
        """Return what evaluation needs of a COCO file, under the new ids; hotcoco refuses the types of others' keys."""
        annotations = content.get('annotations') or []
        found = [dict(id=number, image_id=self._images[entry['image_id']], bbox=entry['bbox'], area=entry['area'],
                      category_id=self._categories[entry['category_id']], iscrowd=int(entry.get('iscrowd') or 0))
                 for number, entry in enumerate(annotations, 1)]
        for key in ['score'] + ['segmentation'] * masks:
            for kept, entry in zip(found, annotations, strict=True):
                if (value := entry.get(key)) is not None:
                    kept[key] = value
        images = [dict(id=self._images[image['id']], file_name='', width=int(image['width']),
                       height=int(image['height'])) for image in content['images']]
        categories = [dict(id=number, name=str(number)) for number in self._categories.values()]
        return dict(images=images, categories=categories, annotations=found)

    def __getattr__(self, name: str):
        if name == '_eval':  # not yet
            raise AttributeError(name)
        return getattr(self._eval, name)

    def evaluate(self) -> None:
        """Match results and truth by `params`."""
        self.params.iouThrs = np.atleast_1d(self.params.iouThrs)
        for name in ('iouThrs', 'recThrs', 'maxDets', 'areaRng', 'areaRngLbl', 'useCats'):
            setattr(self._eval.params, name, getattr(self.params, name))
        # As pycocotools sorts them: the order decides between equal scores.
        self._eval.params.imgIds = sorted(self._images[key] for key in set(self.params.imgIds))
        self._eval.params.catIds = sorted(self._categories[key] for key in set(self.params.catIds))
        self._eval.evaluate()

    def summarize(self) -> None:
        """Print the 12 numbers, without hotcoco's warnings about settings that mmdet always uses."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'hotcoco: ')
            self._eval.summarize()
        self.eval = in_class_order(self._eval.eval, self.params)


def numbered(ids: Iterable) -> dict:
    """Return a number from 1 for each id, in the order in which pycocotools sorts them."""
    return {key: number for number, key in enumerate(sorted(ids, key=lambda key: (isinstance(key, str), key)), 1)}


def in_class_order(tables: dict, params) -> dict:
    """Return an evaluator's tables with their classes, sorted by id, in the order of `params.catIds`."""
    ids = list(getattr(params, 'asked', params.catIds))
    if not params.useCats or ids == sorted(ids):
        return tables
    place = {key: number - 1 for key, number in numbered(ids).items()}
    axis = dict(precision=2, recall=1, scores=2)
    return tables | {name: tables[name].take([place[key] for key in ids], axis[name]) for name in TABLES}


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
        measure = _with_names(CocoMetric.compute_metrics, COCO=_truth, COCOeval=_by_class(stock.COCOeval),
                              COCOevalMP=_by_class(stock.COCOevalMP))

        def compute_metrics(self, results: list) -> dict[str, float]:
            """Return mmdet's numbers, and say which of them could not be measured."""
            several = self.classwise and not self.format_only and len(self.metrics) > 1
            found = _each(self, results) if several else self.measure(results)
            nothing = {key: _left_out_by(self, key) for key, value in found.items() if value == -1 or math.isnan(value)}
            if absent := [key for key, reason in nothing.items() if not reason]:
                print_log(f'not measured, because the data have no such object: {", ".join(absent)}', 'current')
            for key, reason in nothing.items():
                if reason:
                    print_log(f'not measured: {key}, because {reason}', 'current')
            return found

        @property
        def takes_last(self) -> bool:
            """Whether mAP counts the last of `proposal_nums`, as COCOevalMP and hotcoco do; pycocotools counts 100."""
            return self.use_mp_eval

    return NamedCocoMetric


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
        """NamedCocoMetric evaluated by `FastEval`, with the same options, keys and values.

        Without 100 in `proposal_nums` mAP counts the last of them, where pycocotools says -1.
        """
        measure = _with_names(named_class().measure, COCOeval=FastEval, COCOevalMP=FastEval)
        takes_last = True

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
