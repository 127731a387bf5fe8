"""mmseg's cross entropy with weights of classes: the mean over pixels that count, as torch defines it."""
import sys

from torch import Tensor, nn


def correct_losses(model: nn.Module) -> None:
    """Give each of mmseg's cross entropies with weights of classes a divisor that leaves out ignored pixels.

    The stock one looks up the weight of every label, also of those that are ignored, for which there is none.
    """
    stock = sys.modules.get('mmseg.models.losses.cross_entropy_loss')
    for module in model.modules() if stock else ():
        weighs = type(module) is stock.CrossEntropyLoss and module.class_weight is not None
        if weighs and module.cls_criterion is stock.cross_entropy:
            module.cls_criterion = weighted_cross_entropy


def weighted_cross_entropy(pred: Tensor, label: Tensor, weight: Tensor | None = None, *, class_weight: Tensor,
                           reduction: str = 'mean', avg_factor: float | None = None, ignore_index: int = -100,
                           **options) -> Tensor:
    """Return mmseg's `cross_entropy` of scores (B, C, ...) and labels (B, ...), divided by the weights that count.

    Without `avg_factor` the mean divides by the sum of `class_weight` (C,) over the labels that are not ignored.
    """
    from mmseg.models.losses.cross_entropy_loss import cross_entropy
    if reduction == 'mean' and avg_factor is None:
        counts = label != ignore_index
        avg_factor = (class_weight[label.where(counts, 0)] * counts).sum()
    return cross_entropy(pred, label, weight, class_weight, reduction, avg_factor, ignore_index, **options)
