"""Those functions of mmcv 2.1's compiled module `mmcv._ext` that torch and torchvision can stand for.

They have mmcv's signatures: `mmcv/ops/*.py` calls them with preallocated outputs. Any other op of `mmcv._ext` is a
callable that raises an error when it is called, so that `mmcv.ops`, mmdet and mmseg can be imported. The formulas of
NMS, RoIs and deformable convolutions are those of torchvision's kernels, from which mmcv's were derived.
"""
from collections.abc import Callable
from typing import NoReturn

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

# This file is loaded as `mmcv._ext`, so its imports are absolute. The ops that it imports are part of the module.
from mmincubation.compat.mmcv_deformable import (  # noqa: F401
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
    ms_deform_attn_backward,
    ms_deform_attn_forward,
)
from mmincubation.compat.precision import at_least_float32
from mmincubation.errors import ConfigError

REMEDY = 'install an mmcv with compiled ops for this torch, or use a config that does not need it'
AVG_POOL = 1  # mmcv's code: 0 = max, 1 = avg


class MissingOp(ConfigError, NotImplementedError):
    """A config needs an op, or an argument of one, that only compiled code has."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices (M,) int64 of the boxes that greedy NMS keeps, best score first.

    `boxes` (N, 4) are x1, y1, x2, y2 in pixels, `scores` (N,). A box is dropped if its IoU with a better one is above
    the threshold.

    Raises:
        MissingOp: `offset` is 1, the pixel convention of old Caffe models.
    """
    _require_supported('nms', 'offset', offset, 0)
    return torchvision.ops.nms(at_least_float32(boxes), at_least_float32(scores), iou_threshold)


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Write the average RoIAlign of `input` (B, C, H, W) at `rois` (R, 5) to `output` (R, C, h, w).

    A row of `rois` is image index, x1, y1, x2, y2. The argmax tensors belong to max pooling and do not change.

    Raises:
        MissingOp: `pool_mode` is 'max'.
    """
    _require_supported('roi_align', 'pool_mode', pool_mode, AVG_POOL)
    output.copy_(torch.ops.torchvision.roi_align(
        at_least_float32(input), at_least_float32(rois), spatial_scale, aligned_height, aligned_width,
        _torchvision_ratio(sampling_ratio), aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Write the gradient of `roi_align_forward`, from grad_output (R, C, h, w) to grad_input (B, C, H, W)."""
    _require_supported('roi_align', 'pool_mode', pool_mode, AVG_POOL)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        at_least_float32(grad_output), at_least_float32(rois), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, _torchvision_ratio(sampling_ratio), aligned))


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Write the max RoIPool of `input` (B, C, H, W) at `rois` (R, 5) to `output` (R, C, h, w).

    `argmax` (R, C, h, w) int32 gets the pixels that the maxima come from.
    """
    pooled, where = torch.ops.torchvision.roi_pool(
        at_least_float32(input), at_least_float32(rois), spatial_scale, pooled_height, pooled_width)
    output.copy_(pooled)
    argmax.copy_(where)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Write the gradient of `roi_pool_forward`, from grad_output (R, C, h, w) to grad_input (B, C, H, W)."""
    grad_input.copy_(torch.ops.torchvision._roi_pool_backward(
        at_least_float32(grad_output), at_least_float32(rois), argmax, spatial_scale, pooled_height, pooled_width,
        *grad_input.shape))


def sigmoid_focal_loss_forward(input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float,
                               alpha: float) -> None:
    """Write the focal loss of each logit of `input` (N, classes) to `output` (N, classes).

    `target` (N,) int64 is a row's class; in a row with any other number (background, ignored) all classes are negative.
    `weight` (classes,) or empty multiplies the rows of a class; rows of none have weight 1 (mmcv reads beyond the end).
    """
    factors, logits, _ = _focal_terms(input, target, weight, alpha)
    output.copy_(-factors * torch.sigmoid(-logits)**gamma * F.logsigmoid(logits))


def sigmoid_focal_loss_backward(input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float,
                                alpha: float) -> None:
    """Write the derivative of each loss of `sigmoid_focal_loss_forward` by its logit to `grad_input` (N, classes)."""
    factors, logits, positive = _focal_terms(input, target, weight, alpha)
    wrong = torch.sigmoid(-logits)
    slopes = factors * wrong**gamma * (wrong - gamma * torch.sigmoid(logits) * F.logsigmoid(logits))
    grad_input.copy_(torch.where(positive, -slopes, slopes))


def _focal_terms(input: Tensor, target: Tensor, weight: Tensor, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Factors of the losses, the logit of being right, and whether a class is its row's."""
    positive = target[:, None] == torch.arange(input.shape[1], device=input.device)
    logits = at_least_float32(input)
    factors = torch.full_like(logits, 1 - alpha).masked_fill(positive, alpha)
    if weight.numel():
        rows = at_least_float32(weight)[target.clamp(0, len(weight) - 1)]
        factors *= torch.where(positive.any(1), rows, 1.)[:, None]
    return factors, torch.where(positive, logits, -logits), positive


def get_compiler_version() -> str:
    """Return the compiler of the ops for mmcv's environment report (`collect_env`): there was none."""
    return f'n/a (ops of torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """Return the CUDA version for the same report: the one that torch was built for."""
    return torch.version.cuda or 'n/a'


def __getattr__(name: str) -> Callable[..., NoReturn]:
    # mmcv checks every op by hasattr at import. So each op exists, and raises when it is called.
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise MissingOp(f'mmcv op {name!r} needs compiled code that mmcv-lite does not have: {REMEDY}')

    missing.__name__ = name
    return missing


def _require_supported(op: str, argument: str, value: int, supported: int) -> None:
    if value != supported:
        raise MissingOp(
            f'mmcv op {op!r} on torchvision supports {argument}={supported} only, not {argument}={value}: {REMEDY}')


def _torchvision_ratio(sampling_ratio: int) -> int:
    # Both mean "as many samples as the bin has pixels, rounded up": mmcv writes 0, torchvision -1.
    return sampling_ratio if sampling_ratio > 0 else -1
