"""The functions of mmcv 2.1's compiled module `mmcv._ext` that torchvision has too, with the call signatures of mmcv.

`mmcv/ops/*.py` calls them with preallocated outputs. Any other op of `mmcv._ext` is a callable that raises its name and
the remedy when it is called, so that all of `mmcv.ops`, mmdet and mmseg import. Formulas: torchvision's own kernels,
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
    """Greedy NMS: indices of the kept boxes, best score first.

    boxes (N, 4) as x1, y1, x2, y2 in pixels, scores (N,), result (M,) int64. A box goes when its IoU with a better one
    is above the threshold. Raises NotImplementedError for offset 1 (the pixel convention of old Caffe models).
    """
    _only('nms', 'offset', offset, 0)
    return torchvision.ops.nms(_wide(boxes), _wide(scores), iou_threshold)


def roi_align_forward(input: Tensor, rois: Tensor, output: Tensor, argmax_y: Tensor, argmax_x: Tensor,
                      aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                      pool_mode: int, aligned: bool) -> None:
    """Average RoIAlign of input (B, C, H, W) at rois (R, 5; image index, x1, y1, x2, y2) into output (R, C, h, w).

    The argmax tensors belong to max pooling and stay untouched. Raises NotImplementedError for pool_mode 'max'.
    """
    _only('roi_align', 'pool_mode', pool_mode, AVG_POOL)
    output.copy_(torch.ops.torchvision.roi_align(
        _wide(input), _wide(rois), spatial_scale, aligned_height, aligned_width, _ratio(sampling_ratio), aligned))


def roi_align_backward(grad_output: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, grad_input: Tensor,
                       aligned_height: int, aligned_width: int, spatial_scale: float, sampling_ratio: int,
                       pool_mode: int, aligned: bool) -> None:
    """Gradient of `roi_align_forward`: grad_output (R, C, h, w) into grad_input (B, C, H, W)."""
    _only('roi_align', 'pool_mode', pool_mode, AVG_POOL)
    grad_input.copy_(torch.ops.torchvision._roi_align_backward(
        _wide(grad_output), _wide(rois), spatial_scale, aligned_height, aligned_width, *grad_input.shape,
        _ratio(sampling_ratio), aligned))


def roi_pool_forward(input: Tensor, rois: Tensor, output: Tensor, argmax: Tensor, pooled_height: int,
                     pooled_width: int, spatial_scale: float) -> None:
    """Max RoIPool of input (B, C, H, W) at rois (R, 5) into output (R, C, h, w); argmax (int32): source pixels."""
    pooled, where = torch.ops.torchvision.roi_pool(
        _wide(input), _wide(rois), spatial_scale, pooled_height, pooled_width)
    output.copy_(pooled)
    argmax.copy_(where)


def roi_pool_backward(grad_output: Tensor, rois: Tensor, argmax: Tensor, grad_input: Tensor, pooled_height: int,
                      pooled_width: int, spatial_scale: float) -> None:
    """Gradient of `roi_pool_forward`: grad_output (R, C, h, w) into grad_input (B, C, H, W)."""
    grad_input.copy_(torch.ops.torchvision._roi_pool_backward(
        _wide(grad_output), _wide(rois), argmax, spatial_scale, pooled_height, pooled_width, *grad_input.shape))


def get_compiler_version() -> str:
    """What mmcv's environment report (`collect_env`) prints for the compiler of its ops: there was none."""
    return f'n/a (ops of torchvision {torchvision.__version__})'


def get_compiling_cuda_version() -> str:
    """The same report's CUDA version: the one torch was built for."""
    return torch.version.cuda or 'n/a'


def __getattr__(name: str) -> Callable[..., NoReturn]:
    # mmcv checks every op by hasattr at import: each exists, and says at the call that it cannot run.
    if name.startswith('__'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(f'mmcv op {name!r} needs compiled code that mmcv-lite does not have: {REMEDY}')

    missing.__name__ = name
    return missing


def _only(op: str, argument: str, value: int, supported: int) -> None:
    if value != supported:
        raise NotImplementedError(
            f'mmcv op {op!r} on torchvision supports {argument}={supported} only, not {argument}={value}: {REMEDY}')


def _ratio(sampling_ratio: int) -> int:
    # Both mean "as many samples as the bin has pixels, rounded up": mmcv writes 0, torchvision -1.
    return sampling_ratio if sampling_ratio > 0 else -1


def _wide(tensor: Tensor) -> Tensor:
    # torchvision has no bfloat16 kernels and backward runs outside of autocast; in float32 nothing is lost.
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
