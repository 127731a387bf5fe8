"""The plain ViT against timm, and the division of its blocks."""
from functools import partial

import pytest
import timm
import torch
from safetensors.torch import load_file

from mmincubation.checkpoints import write_tensors
from mmincubation.models import ARCHS, Arch, Division, VisionTransformer, ViTClassifier
from mmincubation.vit.attention import Attention


def test_timm_loads_our_file_strictly_and_agrees(tmp_path):
    torch.manual_seed(0)
    ours = VisionTransformer('vit_base').eval()
    write_tensors(tmp_path / 'vit.safetensors', ours.state_dict(), {})
    theirs = timm.create_model('vit_base_patch16_224').eval()
    theirs.load_state_dict(load_file(tmp_path / 'vit.safetensors'), strict=True)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-5)


@pytest.mark.parametrize('arch', [
    dict(qkv_bias=False, norm_eps=1e-5), dict(init_values=0.1), dict(patch_size=8, img_size=40), dict(mlp_ratio=2.),
    dict(global_pool='avg')])
def test_free_choices_agree_with_timm(arch):
    arch = Arch.parse(dict(embed_dim=32, depth=2, num_heads=4, patch_size=4, img_size=16, num_classes=3) | arch)
    ours = VisionTransformer(arch).eval()
    theirs = timm.models.VisionTransformer(
        img_size=arch.img_size, patch_size=arch.patch_size, embed_dim=32, depth=2, num_heads=4, num_classes=3,
        qkv_bias=arch.qkv_bias, global_pool=arch.global_pool, fc_norm=False, init_values=arch.init_values,
        mlp_ratio=arch.mlp_ratio, norm_layer=partial(torch.nn.LayerNorm, eps=arch.norm_eps)).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    images = torch.randn(2, 3, arch.img_size, arch.img_size)
    torch.testing.assert_close(ours(images), theirs(images), rtol=0, atol=1e-6)


@pytest.mark.parametrize('name, millions', [('vit_base', 86.6), ('vit_large', 304.3), ('vit_huge', 632.0)])
def test_sizes_of_the_paper(name, millions):
    with torch.device('meta'):
        model = VisionTransformer(name)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_arch_errors_name_the_culprit():
    with pytest.raises(ValueError, match="unknown arch 'vit_bse'.*vit_base"):
        Arch.parse('vit_bse')
    with pytest.raises(ValueError, match=r"unknown arch fields \['patch'\].*patch_size"):
        Arch.parse(dict(name='vit_base', patch=8))
    with pytest.raises(ValueError, match='embed_dim=10 is not divisible by num_heads=3'):
        Arch(embed_dim=10, depth=1, num_heads=3)
    with pytest.raises(ValueError, match='img_size=30 is not a multiple'):
        Arch.parse(dict(name='vit_base', img_size=30))
    assert Arch.parse(dict(name='vit_large', depth=2)) == ARCHS['vit_large'].with_depth(2)


@pytest.mark.parametrize('field, value, said', [
    ('embed_dim', 0, 'a whole number above 0'), ('depth', 0, 'a whole number above 0'),
    ('num_heads', 0, 'a whole number above 0'), ('num_heads', -3, 'a whole number above 0'),
    ('patch_size', 0, 'a whole number above 0'), ('img_size', 0, 'a whole number above 0'),
    ('mlp_ratio', 0., 'a number above 0'), ('mlp_ratio', float('nan'), 'a number above 0'),
    ('norm_eps', 0, 'a number above 0'), ('num_classes', -1, 'a whole number from 0 on')])
def test_sizes_of_nothing_are_refused(field, value, said):
    with pytest.raises(ValueError, match=f'^{field}={value}: give {said}$'):
        Arch.parse(dict(name='vit_tiny') | {field: value})


def test_division():
    division = Division.of(7, [3, 1, 3])
    assert [list(division.span(i)) for i in range(3)] == [[0, 1, 2], [3], [4, 5, 6]]
    assert division.module_of('blocks.3.attn.qkv.weight') == 1
    assert division.module_of('pos_embed') == division.module_of('patch_embed.proj.bias') == 0
    assert division.module_of('norm.weight') == division.module_of('head.bias') == 2
    for bad in (5, [3, 3], [7, 0], 0):
        with pytest.raises(ValueError):
            Division.of(7, bad)
    with pytest.raises(KeyError, match='7 blocks'):
        division.module_of('blocks.7.norm1.weight')
    with pytest.raises(ValueError, match='modules 0..2'):
        division.span(-1)


def test_meta_depth():
    division = Division.of(7, [3, 2, 2], 2)
    assert division.meta.depths == (2, 2, 2) and [*division.meta.span(1)] == [2, 3]
    for bad in (0, 3, 2., '2', True, None):
        with pytest.raises(ValueError, match='meta_depth=.*from 1 to the depth of the smallest module, 2'):
            Division.of(7, [3, 2, 2], bad)


def test_layers():
    model = VisionTransformer(dict(embed_dim=16, depth=2, num_heads=2, patch_size=4, img_size=8, num_classes=3))
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert {layers[n] for n in ('cls_token', 'pos_embed', 'patch_embed.proj.weight', 'patch_embed.proj.bias')} == {0}
    assert {layers[n] for n in layers if n.startswith('blocks.1.')} == {2} and model.num_layers == 2
    assert {layers[n] for n in ('norm.weight', 'norm.bias', 'head.weight', 'head.bias')} == {3}
    for name in ('blocks.2.norm1.weight', 'tap_norms.0.weight', 'blocks', 'neck.weight'):
        with pytest.raises(KeyError, match=f"'{name}' is not a parameter of a ViT of 2 blocks"):
            model.layer_of(name)


def test_classifier_normalises_and_scores():
    model = ViTClassifier(dict(embed_dim=16, depth=1, num_heads=2, patch_size=4, img_size=8, num_classes=3)).eval()
    data = dict(inputs=torch.full((2, 3, 8, 8), 124, dtype=torch.uint8), labels=torch.tensor([2, 0]))
    inputs = model.data_preprocessor(data)['inputs']
    assert inputs[0, :, 0, 0].tolist() == pytest.approx([(124 - m) / s for m, s in zip(
        (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), strict=True)], abs=1e-5)
    samples = model.val_step(data)
    assert [int(s['label']) for s in samples] == [2, 0]
    assert all(s['scores'].sum().item() == pytest.approx(1) for s in samples)


def test_earlier_names_of_arch_are_refused_with_the_new_ones():
    with pytest.raises(ValueError, match='dim is called embed_dim and heads is called num_heads, as in timm; rename'):
        Arch.parse(dict(dim=16, depth=1, heads=2))


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('fused', [False, True])
def test_attention_has_timms_results_and_gradients_bit_for_bit(fused, bf16):
    torch.manual_seed(0)
    ours, theirs = Attention(32, 4, qkv_bias=True), timm.layers.Attention(32, 4, qkv_bias=True)
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(3, 17, 32)
    found = []
    for layer in (ours, theirs):
        layer.fused_attn = fused
        with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
            output = layer(tokens)
        output.square().sum().backward()
        found.append([output, *(p.grad for p in layer.parameters())])
    assert all(a.equal(b) for a, b in zip(*found, strict=True))
