"""mmcv's ops on torchvision against float64 references in plain numpy, and their gradients by gradcheck."""
import importlib
import itertools
import math

import numpy as np
import pytest
import torch

from mmincubation.compat import mmcv_ext

ops = importlib.import_module('mmcv.ops')  # after mmincubation: that is what makes it importable


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    both = max(width, 0) * max(height, 0)
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def greedy_nms(boxes, scores, threshold):
    kept = []
    for i in np.argsort(-scores, kind='stable'):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def bilinear(plane, y, x):
    height, width = plane.shape
    if y < -1 or y > height or x < -1 or x > width:
        return 0.0
    y, x = max(y, 0.0), max(x, 0.0)
    top, left = min(int(y), height - 1), min(int(x), width - 1)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = (y - top if top < height - 1 else 0.0), (x - left if left < width - 1 else 0.0)
    return ((1 - fy) * ((1 - fx) * plane[top, left] + fx * plane[top, right])
            + fy * ((1 - fx) * plane[down, left] + fx * plane[down, right]))


def bin_mean(plane, y0, x0, bin_h, bin_w, ny, nx):
    samples = [bilinear(plane, y0 + (i + .5) * bin_h / ny, x0 + (j + .5) * bin_w / nx)
               for i in range(ny) for j in range(nx)]
    return sum(samples) / max(len(samples), 1)


def roi_align_reference(images, rois, size, scale, ratio, aligned):
    out = np.zeros((len(rois), images.shape[1], *size))
    for r, (index, *box) in enumerate(rois):
        x1, y1, x2, y2 = (c * scale - (.5 if aligned else 0.) for c in box)
        low = -math.inf if aligned else 1.
        bin_h, bin_w = max(y2 - y1, low) / size[0], max(x2 - x1, low) / size[1]
        ny, nx = (ratio, ratio) if ratio else (math.ceil(bin_h), math.ceil(bin_w))
        for c, i, j in itertools.product(range(images.shape[1]), range(size[0]), range(size[1])):
            out[r, c, i, j] = bin_mean(images[int(index), c], y1 + i * bin_h, x1 + j * bin_w, bin_h, bin_w, ny, nx)
    return out


def random_boxes(n, seed):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 40, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(2, 30, (n, 2))], 1), rng.uniform(size=n)


ROIS = np.array([
    [0, 3.2, 4.1, 17.8, 15.3],       # inside
    [1, 0.0, 0.0, 24.0, 20.0],       # the whole image
    [1, -9.0, -7.5, 6.0, 5.0],       # half outside, above left
    [0, 20.0, 15.0, 40.0, 33.0],     # half outside, below right
    [0, 300.0, 300.0, 330.0, 340.],  # fully outside
    [1, 8.3, 8.3, 8.6, 8.5],         # smaller than a pixel
])


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('scale', [1.0, 0.5])
def test_roi_align_forward_equals_the_loops(aligned, ratio, scale):
    images = np.random.default_rng(0).normal(size=(2, 3, 10, 12))
    got = ops.roi_align(torch.from_numpy(images), torch.from_numpy(ROIS), (3, 4), scale, ratio, 'avg', aligned)
    want = roi_align_reference(images, ROIS, (3, 4), scale, ratio, aligned)
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-12)


@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align_gradient(aligned, ratio):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 2, 6, 7, dtype=torch.double, generator=generator, requires_grad=True)
    rois = torch.from_numpy(ROIS)
    assert torch.autograd.gradcheck(lambda x: ops.roi_align(x, rois, (2, 3), 0.5, ratio, 'avg', aligned), images)


def test_roi_align_float32_module_and_no_boxes():
    images = torch.randn(1, 2, 8, 8, requires_grad=True)
    layer = ops.RoIAlign((2, 2), spatial_scale=1.0, sampling_ratio=0)
    rois = torch.tensor([[0, 1., 1., 6., 7.]])
    want = roi_align_reference(images.detach().double().numpy(), rois.numpy(), (2, 2), 1.0, 0, True)
    np.testing.assert_allclose(layer(images, rois).detach().numpy(), want, rtol=0, atol=1e-5)
    none = layer(images, torch.zeros(0, 5))
    assert none.shape == (0, 2, 2, 2)
    none.sum().backward()
    assert images.grad.shape == images.shape and not images.grad.any()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [True, False])
def test_half_precision_computes_in_float32(dtype, autocast):
    images = torch.randn(2, 2, 8, 8).to(dtype).requires_grad_()
    rois = torch.from_numpy(ROIS).to(dtype)
    with torch.autocast('cpu', dtype, enabled=autocast):
        got = ops.roi_align(images, rois, (2, 2), 0.5, 0, 'avg', True)
        got.sum().backward()
        kept = ops.nms(rois[:, 1:], torch.arange(6.).to(dtype), 0.5)[1]
    wide = images.detach().float().requires_grad_()
    want = ops.roi_align(wide, rois.float(), (2, 2), 0.5, 0, 'avg', True)
    want.sum().backward()
    assert got.dtype == images.grad.dtype == dtype
    assert torch.equal(got, want.to(dtype)) and torch.equal(images.grad, wide.grad.to(dtype))
    assert kept.tolist() == greedy_nms(rois[:, 1:].double().numpy(), np.arange(6.), 0.5)


def test_roi_align_takes_a_gradient_that_is_not_contiguous():
    images = torch.randn(1, 2, 8, 8, dtype=torch.double, requires_grad=True)
    rois, weight = torch.tensor([[0, 1., 1., 6., 7.]], dtype=torch.double), torch.randn(1, 2, 3, 2, dtype=torch.double)
    pooled = ops.roi_align(images, rois, (2, 3), 1.0, 2, 'avg', True)
    swapped, = torch.autograd.grad((pooled.transpose(2, 3) * weight).sum(), images, retain_graph=True)
    plain, = torch.autograd.grad((pooled * weight.transpose(2, 3).contiguous()).sum(), images)
    assert torch.equal(swapped, plain)


def roi_pool_reference(images, rois, size):
    """RoIPool at scale 1, as in Fast R-CNN: whole-pixel boxes (last pixel included), bins from floor to ceil, max."""
    out = np.zeros((len(rois), images.shape[1], *size))
    for r, (index, *box) in enumerate(rois):
        x1, y1, x2, y2 = (int(c) for c in box)
        bin_h, bin_w = (y2 - y1 + 1) / size[0], (x2 - x1 + 1) / size[1]
        for i, j in itertools.product(range(size[0]), range(size[1])):
            rows = slice(y1 + math.floor(i * bin_h), y1 + math.ceil((i + 1) * bin_h))
            columns = slice(x1 + math.floor(j * bin_w), x1 + math.ceil((j + 1) * bin_w))
            out[r, :, i, j] = images[int(index), :, rows, columns].max((1, 2))
    return out


def test_roi_pool_forward_and_gradient():
    images = torch.randperm(2 * 2 * 8 * 9, generator=torch.Generator().manual_seed(1)).double().view(2, 2, 8, 9)
    rois = torch.tensor([[0, 1, 2, 6, 5], [1, 0, 0, 8, 7]], dtype=torch.double)
    got = ops.roi_pool(images, rois, (2, 3), 1.0)
    np.testing.assert_array_equal(got.numpy(), roi_pool_reference(images.numpy(), rois.numpy(), (2, 3)))
    images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.roi_pool(x, rois, (2, 3), 1.0), images)


@pytest.mark.parametrize('threshold', [0.1, 0.5, 0.9])
@pytest.mark.parametrize('count', [0, 1, 60])
def test_nms_equals_greedy_iou(count, threshold):
    boxes, scores = random_boxes(count, seed=count)
    dets, kept = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), threshold)
    assert kept.tolist() == greedy_nms(boxes, scores, threshold)
    np.testing.assert_array_equal(dets.numpy(), np.concatenate([boxes, scores[:, None]], 1)[kept.numpy()])


def test_nms_ties_thresholds_and_limits():
    twins = np.array([[0, 0, 10, 10.], [0, 0, 10, 10.], [20, 20, 30, 30.]])
    dets, kept = ops.nms(twins, np.array([.5, .5, .5]), 0.5)  # numpy in, numpy out
    assert isinstance(dets, np.ndarray) and len(kept) == 2 and 2 in kept and len({0, 1} & set(kept.tolist())) == 1
    half = torch.tensor([[0, 0, 2, 1.], [0, 0, 1, 1.]])  # IoU exactly the threshold: both stay
    assert ops.nms(half, torch.tensor([.9, .8]), 0.5)[1].tolist() == [0, 1]
    boxes, scores = (torch.from_numpy(a) for a in random_boxes(40, seed=7))
    want = [i for i in greedy_nms(boxes.numpy(), scores.numpy(), .5) if scores[i] > .3]
    assert ops.nms(boxes, scores, .5, score_threshold=.3, max_num=4)[1].tolist() == want[:4]


@pytest.mark.parametrize('split', [10000, 10])  # one NMS over shifted boxes, or one per class
def test_batched_nms_equals_greedy_iou_per_class(split):
    boxes, scores = random_boxes(50, seed=3)
    classes = np.arange(50) % 3
    want = []
    for c in range(3):
        members = np.flatnonzero(classes == c)
        want += members[greedy_nms(boxes[members], scores[members], .3)].tolist()
    dets, kept = ops.batched_nms(
        *map(torch.from_numpy, (boxes, scores, classes)), dict(type='nms', iou_threshold=.3, split_thr=split))
    assert kept.tolist() == sorted(want, key=lambda i: -scores[i])
    np.testing.assert_array_equal(dets[:, 4].numpy(), scores[kept.numpy()])


def test_unsupported_arguments_name_op_value_and_remedy():
    boxes, scores = torch.tensor([[0, 0, 2, 1.]]), torch.ones(1)
    with pytest.raises(NotImplementedError, match=r"'nms'.*offset=0 only, not offset=1: install an mmcv"):
        ops.nms(boxes, scores, 0.5, offset=1)
    with pytest.raises(NotImplementedError, match=r"'roi_align'.*pool_mode=1 only, not pool_mode=0: install an mmcv"):
        ops.roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0, 0, 0, 2., 2.]]), 2, 1.0, 0, 'max', True)


def test_other_ops_exist_and_raise_their_name_when_called():
    with pytest.raises(NotImplementedError, match=r"'softnms'.*install an mmcv with compiled ops"):
        ops.soft_nms(torch.tensor([[0, 0, 2, 1.]]), torch.ones(1))
    with pytest.raises(NotImplementedError, match="'carafe_forward'"):
        ops.carafe(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 4, 4), 1, 1, 2)
    assert mmcv_ext.carafe_forward.__name__ == 'carafe_forward'
    with pytest.raises(AttributeError, match='__wrapped__'):
        _ = mmcv_ext.__wrapped__


def test_environment_report_works():
    from mmcv.utils import collect_env
    assert 'torchvision' in collect_env()['MMCV Compiler']
