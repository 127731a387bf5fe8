"""mmdet's COCO metric with a faster evaluator than pycocotools."""
import warnings
from functools import cache
from types import FunctionType

from mmincubation.compat.coco_api import mend_coco
from mmincubation.registry import METRICS


class FastEval:
    """`pycocotools.cocoeval.COCOeval` computed by hotcoco: faster, with bitwise equal results.

    `truth` and `results` are COCO objects of pycocotools, which do not change. `params`, `stats` and `eval` have
    pycocotools' names and shapes.
    """

    def __init__(self, truth, results, iou_type: str):
        import hotcoco
        self._eval = hotcoco.COCOeval(hotcoco.COCO(truth.dataset), hotcoco.COCO(results.dataset), iou_type)

    def __getattr__(self, name: str):
        return getattr(self._eval, name)

    def summarize(self) -> None:
        """Print the 12 numbers, without hotcoco's warnings about settings that mmdet always uses."""
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', 'hotcoco: ')
            self._eval.summarize()


def _with_names(function: FunctionType, **names) -> FunctionType:
    """Return a copy of the function that sees other objects under these global names."""
    return FunctionType(function.__code__, function.__globals__ | names, function.__name__, function.__defaults__,
                        function.__closure__)


@cache
def _metric_class() -> type:
    """Create the class on its first use, so that mmdet is imported only if a config names it."""
    from mmdet.evaluation import CocoMetric
    mend_coco()

    class FastCocoMetric(CocoMetric):
        """mmdet's CocoMetric evaluated by `FastEval`, with the same options, keys and values."""
        compute_metrics = _with_names(CocoMetric.compute_metrics, COCOeval=FastEval, COCOevalMP=FastEval)

    return FastCocoMetric


@METRICS.register_module(name='FastCocoMetric')
def fast_coco_metric(**options):
    """Return mmdet's CocoMetric with these options, evaluated by hotcoco: faster, with bitwise equal results.

    `use_mp_eval` has no effect, because hotcoco always uses all cores.
    """
    return _metric_class()(**options)


fast_coco_metric.makes = _metric_class  # whose keys a config may give; see engine/signatures.py
