"""The simple feature pyramid against an independent functional computation."""
import pytest
import torch
import torch.nn.functional as F

from mmincubation.downstream import SimpleFeaturePyramid


def norm(maps, layer):
    """LayerNorm over the channels, by its definition."""
    mean, variance = maps.mean(1, keepdim=True), maps.var(1, keepdim=True, unbiased=False)
    normed = (maps - mean) / (variance + 1e-6).sqrt()
    return normed * layer.weight[:, None, None] + layer.bias[:, None, None]


def up(maps, layer):
    return F.conv_transpose2d(maps, layer.weight, layer.bias, stride=2)


def convs(maps, layers):
    maps = norm(F.conv2d(maps, layers[0].weight), layers[1])
    return norm(F.conv2d(maps, layers[2].weight, padding=1), layers[3])


def reference(neck, maps):
    x4, x2, x1, half = neck.levels
    outputs = [
        convs(up(F.gelu(norm(up(maps, x4[0]), x4[1])), x4[3]), x4[4:]),
        convs(up(maps, x2[0]), x2[1:]),
        convs(maps, x1),
        convs(F.max_pool2d(maps, 2), half[1:])]
    return outputs + [outputs[-1][..., ::2, ::2]]


def test_equals_the_operations_spelled_out():
    torch.manual_seed(0)
    neck = SimpleFeaturePyramid(16, out_channels=8)
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter)
    maps = torch.randn(2, 16, 5, 6)
    outputs = neck((torch.randn(2, 16, 9, 9), maps))
    assert [tuple(x.shape[2:]) for x in outputs] == [(20, 24), (10, 12), (5, 6), (2, 3), (1, 2)]
    for output, expected in zip(outputs, reference(neck, maps), strict=True):
        torch.testing.assert_close(output, expected, atol=1e-4, rtol=1e-4)


def test_only_the_convolutions_before_a_norm_lack_a_bias():
    names = {name for name, _ in SimpleFeaturePyramid(16, 8).levels[0].named_parameters()}
    assert names == {f'{i}.{kind}' for i in (0, 1, 3, 5, 7) for kind in ('weight', 'bias')} | {'4.weight', '6.weight'}


def test_every_parameter_is_used():
    torch.manual_seed(0)
    neck = SimpleFeaturePyramid(16, 8)
    sum((x * torch.randn_like(x)).sum() for x in neck((torch.randn(1, 16, 4, 4), ))).backward()
    assert [name for name, p in neck.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_outputs_are_float32_under_autocast():
    with torch.autocast('cpu', torch.bfloat16):
        outputs = SimpleFeaturePyramid(16, 8)((torch.randn(1, 16, 4, 4), ))
    assert {x.dtype for x in outputs} == {torch.float32}


def test_fewer_scales_and_more_levels():
    outputs = SimpleFeaturePyramid(16, 8, scales=(2, 1), num_outs=4)((torch.randn(1, 16, 8, 8), ))
    assert [x.shape[-1] for x in outputs] == [16, 8, 4, 2]


@pytest.mark.parametrize('arguments, message', [
    (dict(scales=(3, 1)), 'no scale 3'),
    (dict(scales=(1, 2)), 'finest'),
    (dict(scales=(2, 2)), 'finest'),
    (dict(scales=()), 'finest'),
    (dict(num_outs=3), 'num_outs=3'),
])
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(16, 8, **arguments)
