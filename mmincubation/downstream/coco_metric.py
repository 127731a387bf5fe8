"""COCO's metric with a fast evaluator in the place of pycocotools'."""
import warnings
from functools import cache
from types import FunctionType

from mmincubation.registry import METRICS


class FastEval:
    """`pycocotools.cocoeval.COCOeval` computed by hotcoco: the same bits in a fraction of the time.

    `truth` and `results` are pycocotools' COCO objects; they stay as they are. `params`, `stats` and `eval` are
    hotcoco's, named and shaped as pycocotools'.
    """

    def __init__(self, truth, results, iou_type: str):
        import hotcoco
        self._eval = hotcoco.COCOeval(hotcoco.COCO(truth.dataset), hotcoco.COCO(results.dataset), iou_type)

    def __getattr__(self, name: str):
        return getattr(self._eval, name)

    def summarize(self) -> None:
        """Print the 12 numbers, without hotcoco's warnings about the settings that mmdet always makes."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'hotcoco: ')
            self._eval.summarize()


def _with_names(function: FunctionType, **names) -> FunctionType:
    """A copy of the function that finds other objects under these global names; the original stays as it is."""
    return FunctionType(function.__code__, function.__globals__ | names, function.__name__, function.__defaults__,
                        function.__closure__)


@cache
def _metric_class() -> type:
    """The class, made on its first use: mmdet is imported by those alone who name it in a config."""
    from mmdet.evaluation import CocoMetric

    class FastCocoMetric(CocoMetric):
        """mmdet's CocoMetric, evaluated by `FastEval`: same options, keys and values."""
        compute_metrics = _with_names(CocoMetric.compute_metrics, COCOeval=FastEval, COCOevalMP=FastEval)

    return FastCocoMetric


@METRICS.register_module(name='FastCocoMetric')
def fast_coco_metric(**options):
    """mmdet's CocoMetric with all its options, evaluated by hotcoco: equal to the last bit, several times faster.

    `use_mp_eval` changes nothing: the evaluator uses all cores anyway.
    """
    return _metric_class()(**options)


fast_coco_metric.makes = _metric_class  # whose keys a config may give; see engine/signatures.py
