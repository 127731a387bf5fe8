"""bfloat16 and activation checkpointing in the backbone and the pyramid."""
import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData
from torch import nn

from mmincubation.downstream import SimpleFeaturePyramid, ViTBackbone
from mmincubation.vit import transformer as vit
from tests.downstream.test_backbone import randomise, weighted_sum
from tests.downstream.test_backbone_in_mm import assert_trains, mask_rcnn

ARCH = dict(embed_dim=32, depth=4, num_heads=2, patch_size=4, img_size=24)
KINDS = [dict(out_indices=(1, 3), window_size=4, global_blocks=(3, )), dict(out_indices=(3, ), cls_token=True),
         dict(out_indices=(1, 3), tap_norm=True)]


def build(**arguments):
    torch.manual_seed(0)
    return ViTBackbone(ARCH, **arguments)


def images():
    return torch.randn(3, 3, 24, 20, generator=torch.Generator().manual_seed(1))


def dtypes(model, kind):
    """What the layers of a kind return, filled by the next forward."""
    seen = set()
    for module in model.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    return seen


# --- bfloat16

@pytest.mark.parametrize('arguments', KINDS)
def test_bfloat16_inside_float32_outside(arguments):
    expected, model = build(**arguments)(images()), build(**arguments, bf16=True)
    seen = dtypes(model, nn.Linear)
    outputs = model(images())
    assert seen == {torch.bfloat16} and {p.dtype for p in model.parameters()} == {torch.float32}
    for output, reference in zip(outputs, expected, strict=True):
        assert output.dtype == torch.float32 and not output.equal(reference)
        torch.testing.assert_close(output, reference, atol=0.03, rtol=0.03)


def test_without_bf16_the_callers_precision_counts():
    model = build(out_indices=(3, ))
    seen = dtypes(model, nn.Linear)
    model(images())
    assert seen == {torch.float32}
    with torch.autocast('cpu', torch.bfloat16):
        model(images())
    assert seen == {torch.float32, torch.bfloat16}


def test_the_residual_stream_stays_float32():
    model = randomise(build(out_indices=(3, ), bf16=True))
    model.patch_embed.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    model.blocks[0].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].dtype))
    model.blocks[3].register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    seen = []
    model(images())
    assert seen == [torch.bfloat16, torch.float32, torch.float32]


@pytest.mark.parametrize('window', [3, 4])  # of a grid of 6 x 5: padded
def test_windows_attend_as_other_blocks_do(window, monkeypatch):
    """In bfloat16 on a CPU in several operations, else fused; both compute the same."""
    fused, attention = [], nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(nn.functional, 'scaled_dot_product_attention',
                        lambda *qkv: (fused.append(1), attention(*qkv))[1])
    arguments = dict(out_indices=(3, ), window_size=window)
    expected = build(**arguments)(images())[0]
    assert len(fused) == 4
    with torch.no_grad():
        several = build(**arguments, bf16=True)(images())[0]
        assert len(fused) == 4
        with vit.attention_as_on_gpus():
            one = build(**arguments, bf16=True)(images())[0]
    assert len(fused) == 8
    torch.testing.assert_close(one, several, atol=0.03, rtol=0.03)
    torch.testing.assert_close(expected, several, atol=0.03, rtol=0.03)


def test_pyramid_in_bfloat16():
    maps = torch.randn(2, 16, 6, 6, generator=torch.Generator().manual_seed(1))
    outputs = []
    for bf16 in (False, True):
        torch.manual_seed(0)
        neck = SimpleFeaturePyramid(16, 8, bf16=bf16)
        seen = dtypes(neck, nn.Conv2d)
        outputs.append(neck((maps, )))
    assert seen == {torch.bfloat16}
    for full, half in zip(*outputs, strict=True):
        assert half.dtype == torch.float32 and not half.equal(full)
        torch.testing.assert_close(half, full, atol=0.1, rtol=0.05)


# --- activation checkpointing

def gradients(arguments, **changes):
    """Of a training step with stochastic depth; every run draws the same."""
    model = build(**arguments, drop_path_rate=0.5, **changes).train()
    torch.manual_seed(2)
    outputs = model(images())
    weighted_sum(outputs).backward()
    return outputs, {name: p.grad for name, p in model.named_parameters()}, torch.rand(1)


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('arguments', KINDS)
def test_checkpointing_changes_no_number(arguments, bf16):
    outputs, expected, after = gradients(arguments, bf16=bf16)
    again, found, after_again = gradients(arguments, bf16=bf16, with_cp=True)
    assert all(a.equal(b) for a, b in zip(outputs, again, strict=True))
    assert all(found[name].equal(gradient) for name, gradient in expected.items())
    assert after.equal(after_again)  # the recomputation leaves the generator where it was


def test_stochastic_depth_was_at_work():
    _, dropped, _ = gradients(KINDS[0])
    torch.manual_seed(2)
    model = build(**KINDS[0])
    torch.manual_seed(2)
    weighted_sum(model(images())).backward()
    assert not dropped['blocks.2.mlp.fc1.weight'].equal(model.blocks[2].mlp.fc1.weight.grad)


def kept(model) -> int:
    """Bytes of activations that a forward keeps for the backward pass."""
    own, sizes = {p.data_ptr() for p in model.parameters()}, {}
    with torch.autograd.graph.saved_tensors_hooks(
            lambda t: (sizes.update({t.data_ptr(): t.untyped_storage().nbytes()}), t)[1], lambda t: t):
        outputs = model(images())
    assert outputs
    return sum(size for pointer, size in sizes.items() if pointer not in own)


def test_checkpointing_keeps_less():
    assert kept(build(out_indices=(3, ), with_cp=True).train()) < kept(build(out_indices=(3, )).train()) / 3


def test_checkpointing_only_where_there_is_a_backward_pass(monkeypatch):
    calls = []
    monkeypatch.setattr(vit, 'checkpoint', lambda function, *args, **_: calls.append(1) or function(*args))
    model = build(out_indices=(3, ), with_cp=True)
    model.eval()(images())
    with torch.no_grad():
        model.train()(images())
    assert calls == []
    model(images())
    assert len(calls) == 4


# --- in a detector

def test_mask_rcnn_trains_in_bfloat16_with_checkpointing():
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    torch.manual_seed(0)
    model = mask_rcnn()
    model.backbone.bf16 = model.backbone.with_cp = model.neck.bf16 = True
    maps, seen = [], dtypes(model.backbone, nn.Linear)
    model.rpn_head.register_forward_pre_hook(lambda module, inputs: maps.extend(inputs[0]))
    for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
        extractor.register_forward_pre_hook(lambda module, inputs: maps.extend([*inputs[0], inputs[1]]))
    masks = np.zeros((1, 64, 96), np.uint8)
    masks[0, 8:40, 16:56] = 1
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), batch_input_shape=(64, 96), pad_shape=(64, 96)))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[16., 8, 56, 40]]), labels=torch.tensor([1]),
                                       masks=BitmapMasks(masks, 64, 96))
    assert_trains(model.train(), torch.randn(1, 3, 64, 96), [sample])
    assert seen == {torch.bfloat16} and len(maps) == 15 and {x.dtype for x in maps} == {torch.float32}
