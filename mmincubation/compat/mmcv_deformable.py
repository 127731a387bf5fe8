"""mmcv's deformable attention by `grid_sample`, and its deformable convolutions by torchvision's.

The names, arguments and preallocated outputs are those of mmcv 2.1's compiled module (see `mmcv_ext`). float16 and
bfloat16 are computed in float32.
"""
import torch
from torch import Tensor

from .precision import at_least_float32


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                           sampling_locations: Tensor, attention_weights: Tensor, im2col_step: int) -> Tensor:
    """Return the attention (B, queries, heads * D) over the pixels of several maps, sampled bilinearly.

    `value` (B, pixels, heads, D) has the maps one after the other, their sizes are rows h, w of `value_spatial_shapes`.
    `sampling_locations` (B, queries, heads, maps, points, 2) are x, y in 0 ... 1 of a map, beyond it is zero;
    `attention_weights` (B, queries, heads, maps, points). The start index and the step change no result.
    """
    inputs = map(at_least_float32, (value, sampling_locations, attention_weights))
    return _attend(value_spatial_shapes, *inputs).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor, value_level_start_index: Tensor,
                            sampling_locations: Tensor, attention_weights: Tensor, grad_output: Tensor,
                            grad_value: Tensor, grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int) -> None:
    """Write the gradients of `ms_deform_attn_forward`, which is computed again, to the three `grad_` tensors."""
    with torch.enable_grad():
        inputs = [at_least_float32(tensor).detach().requires_grad_()
                  for tensor in (value, sampling_locations, attention_weights)]
        output = _attend(value_spatial_shapes, *inputs)
    gradients = torch.autograd.grad(output, inputs, at_least_float32(grad_output))
    for target, gradient in zip((grad_value, grad_sampling_loc, grad_attn_weight), gradients, strict=True):
        target.copy_(gradient)


def _attend(shapes: Tensor, value: Tensor, locations: Tensor, weights: Tensor) -> Tensor:
    from mmcv.ops.multi_scale_deform_attn import multi_scale_deformable_attn_pytorch  # it imports mmcv._ext, so us
    return multi_scale_deformable_attn_pytorch(value, shapes.tolist(), locations, weights)


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                  mask: Tensor, output: Tensor, columns: Tensor, **settings: int) -> None:
    """Write the deformable convolution v2 of `input` (B, C, H, W) to `output`; `ones` and `columns` are not used.

    `bias` is empty unless `settings['with_bias']`.
    """
    output.copy_(_convolve(input, weight, offset, mask, bias, settings))


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor, offset: Tensor,
                                   mask: Tensor, columns: Tensor, grad_input: Tensor, grad_weight: Tensor,
                                   grad_bias: Tensor, grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   **settings: int) -> None:
    """Write the gradients of `modulated_deform_conv_forward` to the five `grad_` tensors."""
    found = _convolve_backward(grad_output, input, weight, offset, mask, bias, settings)
    targets = [grad_input, grad_weight, grad_offset, grad_mask, grad_bias]
    for target, gradient in zip(targets if settings['with_bias'] else targets[:-1], found, strict=False):
        target.copy_(gradient)


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor, columns: Tensor, ones: Tensor,
                        **settings: int) -> None:
    """Write the deformable convolution v1 of `input` (B, C, H, W) to `output`."""
    output.copy_(_convolve(input, weight, offset, *_no_mask(input, weight), settings))


def deform_conv_backward_input(input: Tensor, offset: Tensor, grad_output: Tensor, grad_input: Tensor,
                               grad_offset: Tensor, weight: Tensor, columns: Tensor, **settings: int) -> None:
    """Write the gradients of `deform_conv_forward` to `grad_input` and `grad_offset`."""
    found = _convolve_backward(grad_output, input, weight, offset, *_no_mask(input, weight), settings)
    grad_input.copy_(found[0])
    grad_offset.copy_(found[2])


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, grad_output: Tensor, grad_weight: Tensor,
                                    columns: Tensor, ones: Tensor, **settings: int) -> None:
    """Add the gradient of `deform_conv_forward`, times `scale`, to `grad_weight`."""
    weight = torch.zeros_like(grad_weight)  # its own gradient does not depend on it
    found = _convolve_backward(grad_output, input, weight, offset, *_no_mask(input, weight), settings)
    grad_weight.add_(found[1].to(grad_weight.dtype), alpha=settings['scale'])


def _convolve(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, settings: dict) -> Tensor:
    bias = bias if settings.get('with_bias') else weight.new_zeros(len(weight))
    tensors = map(at_least_float32, (input, weight, offset, mask, bias))
    return torch.ops.torchvision.deform_conv2d(*tensors, *_numbers(settings))


def _convolve_backward(grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor,
                       settings: dict) -> tuple[Tensor, ...]:
    """Gradients of input, weight, offset, mask and bias."""
    bias = bias if settings.get('with_bias') else weight.new_zeros(len(weight))
    tensors = map(at_least_float32, (grad_output, input, weight, offset, mask, bias))
    return torch.ops.torchvision._deform_conv2d_backward(*tensors, *_numbers(settings))


def _no_mask(input: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What stands for the mask and the bias of v1, which has neither."""
    return input.new_zeros(len(input), 1), weight.new_zeros(len(weight))


def _numbers(settings: dict) -> tuple:
    """What torchvision takes, stride h to use_mask, from the keywords of mmcv's v1 or v2."""
    v2 = 'kernel_h' in settings
    names = ('stride_{}', 'pad_{}', 'dilation_{}') if v2 else ('d{}', 'pad{}', 'dilation{}')
    sides = ('h', 'w') if v2 else ('H', 'W')
    given = [settings[name.format(side)] for name in names for side in sides]
    return *given, settings['group'], settings['deformable_group'], v2
