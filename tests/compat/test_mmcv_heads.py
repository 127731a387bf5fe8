"""What one-stage and transformer heads call on a GPU: focal loss and deformable ops against Python formulas."""
import importlib

import pytest
import torch
from torch.nn import functional as F

import mmincubation  # noqa: F401  makes mmcv.ops importable

ops = importlib.import_module('mmcv.ops')
attention = importlib.import_module('mmcv.ops.multi_scale_deform_attn')
mmdet_losses = importlib.import_module('mmdet.models.losses.focal_loss')
mmseg_losses = importlib.import_module('mmseg.models.losses.focal_loss')

# Rounding of the result to its type; the formulas themselves agree far closer.
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}


def drawn(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.fixture
def targets():
    """Rows of 4 classes: each class, the background (4), and numbers that mean "ignored"."""
    return torch.tensor([0, 1, 2, 3, 4, 4, -1, 255, 2])


@pytest.mark.parametrize('dtype', TOLERANCES)
@pytest.mark.parametrize('gamma, alpha', [(2., .25), (1.5, .6), (0., .5)])
def test_focal_loss_and_gradient_equal_mmdets_formula(targets, dtype, gamma, alpha):
    logits, outer = 4 * drawn(9, 4, dtype=dtype), drawn(9, 4, dtype=dtype, seed=1)
    ours, wide = logits.clone().requires_grad_(), logits.double().requires_grad_()
    got = ops.sigmoid_focal_loss(ours, targets, gamma, alpha, None, 'none')
    one_hot = (targets[:, None] == torch.arange(4)).long()
    want = mmdet_losses.py_sigmoid_focal_loss(wide, one_hot, gamma=gamma, alpha=alpha, reduction='none')
    got.backward(outer)
    want.backward(outer.double())
    assert got.dtype == ours.grad.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])
    torch.testing.assert_close(ours.grad.double(), wide.grad, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@pytest.mark.parametrize('gamma', [.5, 2.])
def test_focal_loss_of_sure_logits_has_finite_gradients(gamma):
    logits = torch.tensor([[200., -200.], [-200., 200.]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0, 0]), gamma, .25, None, 'none')
    loss.sum().backward()
    assert loss.tolist() == [[0., 0.], [50., 150.]]
    assert logits.grad.tolist() == [[0., 0.], [-.25, .75]]


def test_focal_loss_weights_rows_by_class_and_reduces_by_rows(targets):
    logits, weight = drawn(9, 4).requires_grad_(), torch.tensor([.5, 2., 3., 0.], dtype=torch.float64)
    plain = ops.sigmoid_focal_loss(logits, targets, 2., .25, None, 'none')
    rows = torch.tensor([.5, 2., 3., 0., 1., 1., 1., 1., 3.], dtype=torch.float64)
    torch.testing.assert_close(ops.sigmoid_focal_loss(logits, targets, 2., .25, weight, 'none'), plain * rows[:, None])
    for reduction, want in (('sum', plain.sum()), ('mean', plain.sum() / 9)):  # not by rows x classes, as mmdet's is
        torch.testing.assert_close(ops.sigmoid_focal_loss(logits, targets, 2., .25, None, reduction), want)
    assert torch.autograd.gradcheck(lambda x: ops.sigmoid_focal_loss(x, targets, 2., .25, weight, 'mean'), logits)


def test_mmdets_and_mmsegs_wrappers_of_the_op_equal_their_formulas():
    logits, targets = drawn(6, 3), torch.tensor([0, 1, 2, 0, 2, 0])
    one_hot, given = F.one_hot(targets, 3), dict(gamma=2., alpha=.25)
    row_weight, valid = torch.rand(6, 1, dtype=torch.float64), torch.ones(6, 1)
    want = mmdet_losses.py_sigmoid_focal_loss(logits, one_hot, row_weight, **given, avg_factor=5)
    got = mmdet_losses.sigmoid_focal_loss(logits, targets, row_weight, **given, avg_factor=5)
    torch.testing.assert_close(got, want)
    for alpha in (.25, [.1, .2, .3]):
        given = dict(gamma=2., alpha=alpha, class_weight=[1., 2., 3.], valid_mask=valid)
        want = mmseg_losses.py_sigmoid_focal_loss(logits, one_hot, **given)
        torch.testing.assert_close(mmseg_losses.sigmoid_focal_loss(logits, targets, one_hot, **given), want)


SHAPES = torch.tensor([[3, 5], [2, 2]])
STARTS = torch.tensor([0, 15])


def attention_inputs(dtype):
    """Value, places (some outside of the maps) and weights: 2 images, 2 heads of 4, 3 queries, 2 maps, 2 points."""
    value, places = drawn(2, 19, 2, 4, dtype=dtype), (.5 + .6 * drawn(2, 3, 2, 2, 2, 2, seed=1)).to(dtype)
    weights = drawn(2, 3, 2, 2, 2, seed=2).flatten(3).softmax(-1).view(2, 3, 2, 2, 2).to(dtype)
    return [tensor.requires_grad_() for tensor in (value, places, weights)]


@pytest.mark.parametrize('dtype', TOLERANCES)
def test_deformable_attention_and_gradients_equal_mmcvs_formula(dtype):
    ours = attention_inputs(dtype)
    wide = [tensor.detach().double().requires_grad_() for tensor in ours]
    outer = drawn(2, 3, 8, dtype=dtype, seed=3)
    got = attention.MultiScaleDeformableAttnFunction.apply(ours[0], SHAPES, STARTS, *ours[1:], 64)
    want = attention.multi_scale_deformable_attn_pytorch(wide[0], SHAPES, *wide[1:])
    got.backward(outer)
    want.backward(outer.double())
    assert got.dtype == dtype
    for a, b in [(got, want), *((a.grad, b.grad) for a, b in zip(ours, wide, strict=True))]:
        torch.testing.assert_close(a.double(), b, rtol=5 * TOLERANCES[dtype], atol=5 * TOLERANCES[dtype])


@pytest.fixture
def convolved():
    """Input, offset (2 groups), weight (2 groups) of kernel 3 x 2, stride (2, 1), padding 1, and these settings."""
    tensors = [drawn(2, 4, 7, 8), drawn(2, 2 * 2 * 6, 4, 9, seed=1), drawn(6, 2, 3, 2, seed=2)]
    return [tensor.requires_grad_() for tensor in tensors], ((2, 1), (1, 1), (1, 1), 2, 2)


def sampled_convolution(image, offset, weight, mask=None):
    """The deformable convolution of the fixture, each sample by `grid_sample`."""
    rows, columns = offset.shape[2:]
    y, x = torch.meshgrid(torch.arange(rows) * 2 - 1, torch.arange(columns) - 1, indexing='ij')
    out = offset.new_zeros(2, 6, rows, columns)
    for group, k in ((g, k) for g in range(2) for k in range(6)):
        shift = offset[:, 12 * group + 2 * k:12 * group + 2 * k + 2]
        at_x, at_y = x + k % 2 + shift[:, 1], y + k // 2 + shift[:, 0]
        grid = torch.stack([(2 * at_x + 1) / 8 - 1, (2 * at_y + 1) / 7 - 1], -1)
        part = F.grid_sample(image[:, 2 * group:2 * group + 2], grid, align_corners=False)
        part = part if mask is None else part * mask[:, 6 * group + k, None]
        kernel = weight.view(2, 3, 2, 6)[group, :, :, k]  # out, in
        out = out + F.pad(torch.einsum('bchw,oc->bohw', part, kernel), (0, 0, 0, 0, 3 * group, 3 - 3 * group))
    return out


def test_deformable_convolutions_and_gradients_equal_grid_samples(convolved):
    (image, offset, weight), settings = convolved
    mask, bias = torch.rand(2, 12, 4, 9, dtype=torch.float64, requires_grad=True), drawn(6).requires_grad_()
    pairs = [(ops.deform_conv2d(image, offset, weight, *settings), sampled_convolution(image, offset, weight), 3),
             (ops.modulated_deform_conv2d(image, offset, mask, weight, bias, *settings),
              sampled_convolution(image, offset, weight, mask) + bias[:, None, None], 5),
             (ops.modulated_deform_conv2d(image, offset, mask, weight, None, *settings),
              sampled_convolution(image, offset, weight, mask), 4)]
    outer = drawn(2, 6, 4, 9, seed=4)
    for got, want, count in pairs:
        inputs = [image, offset, weight, mask, bias][:count]
        torch.testing.assert_close(got, want)
        for a, b in zip(torch.autograd.grad(got, inputs, outer), torch.autograd.grad(want, inputs, outer), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_deformable_convolution_of_half_precision_is_float32s_rounded(convolved, dtype):
    tensors, settings = convolved
    half = [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]
    wide = [tensor.detach().float().requires_grad_() for tensor in half]
    got, want = (ops.deform_conv2d(*inputs, *settings) for inputs in (half, wide))
    assert torch.equal(got, want.to(dtype))
    got.sum().backward()
    want.sum().backward()
    assert all(torch.equal(a.grad, b.grad.to(dtype)) for a, b in zip(half, wide, strict=True))
