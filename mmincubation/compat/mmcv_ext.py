"""Those functions of mmcv 2.1's compiled module `mmcv._ext` that torchvision has too, with mmcv's signatures.

`mmcv/ops/*.py` calls them with preallocated outputs. Any other op of `mmcv._ext` is a callable that raises an error
when it is called, so that `mmcv.ops`, mmdet and mmseg can be imported. The formulas are those of torchvision's kernels,
from which mmcv's were derived.
"""
from collections.abc import Callable
from typing import NoReturn

import torch
import torchvision
from torch import Tensor

REMEDY = 'install an mmcv with compiled ops for this torch, or use a config that does not need it'
AVG_POOL = 1  # mmcv's code: 0 = max, 1 = avg


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return the indices (M,) int64 of the boxes that greedy NMS keeps, best score first.

    `boxes` (N, 4) are x1, y1, x2, y2 in pixels, `scores` (N,). A box is dropped if its IoU with a better one is above
    the threshold.

    Raises:
        NotImplementedError: `offset` is 1, the pixel convention of old Caffe models.
    """
    _require_supported('nms', 'offset', offset, 0)
    return torchvision.ops.nms(_at_least_float32(boxes), _at_least_float32(scores), iou_threshold)


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Write the average RoIAlign of `input` (B, C, H, W) at `rois` (R, 5) to `output` (R, C, h, w).

    A row of `rois` is image index, x1, y1, x2, y2. The argmax tensors belong to max pooling and do not change.

    Raises:
        NotImplementedError: `pool_mode` is 'max'.
    """
    _require_supported('roi_align', 'pool_mode', pool_mode, AVG_POOL)
    output.copy_(torch.ops.torchvision.roi_align(
        _at_least_float32(input), _at_least_float32(rois), spatial_scale, aligned_height, aligned_width,
        _torchvision_ratio(sampling_ratio), aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Write the gradient of `roi_align_forward`, from grad_output (R, C, h, w) to grad_input (B, C, H, W)."""
    _require_supported('roi_align', 'pool_mode', pool_mode, AVG_POOL)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        _at_least_float32(grad_output), _at_least_float32(rois), spatial_scale, aligned_height, aligned_width,
        *grad_input.shape, _torchvision_ratio(sampling_ratio), aligned))


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Write the max RoIPool of `input` (B, C, H, W) at `rois` (R, 5) to `output` (R, C, h, w).

    `argmax` (R, C, h, w) int32 gets the pixels that the maxima come from.
    """
    pooled, where = torch.ops.torchvision.roi_pool(
        _at_least_float32(input), _at_least_float32(rois), spatial_scale, pooled_height, pooled_width)
    output.copy_(pooled)
    argmax.copy_(where)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Write the gradient of `roi_pool_forward`, from grad_output (R, C, h, w) to grad_input (B, C, H, W)."""
    grad_input.copy_(torch.ops.torchvision._roi_pool_backward(
        _at_least_float32(grad_output), _at_least_float32(rois), argmax, spatial_scale, pooled_height, pooled_width,
        *grad_input.shape))


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
        raise NotImplementedError(f'mmcv op {name!r} needs compiled code that mmcv-lite does not have: {REMEDY}')

    missing.__name__ = name
    return missing


def _require_supported(op: str, argument: str, value: int, supported: int) -> None:
    if value != supported:
        raise NotImplementedError(
            f'mmcv op {op!r} on torchvision supports {argument}={supported} only, not {argument}={value}: {REMEDY}')


def _torchvision_ratio(sampling_ratio: int) -> int:
    # Both mean "as many samples as the bin has pixels, rounded up": mmcv writes 0, torchvision -1.
    return sampling_ratio if sampling_ratio > 0 else -1


def _at_least_float32(tensor: Tensor) -> Tensor:
    # torchvision has no bfloat16 kernels, and backward runs outside of autocast. float32 holds every such value.
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
