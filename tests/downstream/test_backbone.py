"""The ViT as a backbone: windows, position embedding, taps, and what `init_weights` accepts."""
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models.vision_transformer_sam import Block as SamBlock
from torch import nn

from bench.windows import cut_before, run
from mmincubation.checkpoints import CheckpointError, write_tensors
from mmincubation.downstream import ViTBackbone, backbone
from mmincubation.downstream.windows import WindowBlock, attend_in_windows
from mmincubation.models import Arch, VisionTransformer
from mmincubation.vit.transformer import build_block, set_drop_path

TINY = dict(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=24, num_classes=3)


def randomise(module):
    """Weights far from their start, so that no part of the computation is near the identity."""
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=.3)
    return module


def weighted_sum(outputs):
    """A loss to which each output value contributes differently (a plain sum of normed maps is constant)."""
    return sum((x * torch.randn_like(x)).sum() for x in outputs)


# --- windows

@pytest.mark.parametrize('options', [{}, dict(init_values=.1), dict(qkv_bias=False)])
@pytest.mark.parametrize('grid, window', [((8, 8), 4), ((5, 7), 4), ((3, 2), 4), ((9, 4), 4), ((5, 7), 0)])
def test_windows_equal_timms_sam_block(grid, window, options):
    torch.manual_seed(0)
    ours = randomise(build_block(Arch(**TINY, **options), WindowBlock)).double()
    theirs = SamBlock(16, 2, **dict(qkv_bias=True) | options, window_size=window,
                      norm_layer=partial(nn.LayerNorm, eps=1e-6))
    theirs.double().load_state_dict(ours.state_dict())
    tokens = torch.randn(2, *grid, 16, dtype=torch.float64)
    result = ours(tokens.flatten(1, 2), grid, window)
    torch.testing.assert_close(result, theirs(tokens).flatten(1, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('grid, options', [((8, 12), {}), ((5, 7), {}), ((9, 4), dict(qkv_bias=False))])
def test_windows_and_gradients_equal_those_cut_before_the_linear_layers(grid, options, bf16):
    """To the bit where nothing is padded; elsewhere the sums have other summands, zeros or none."""
    torch.manual_seed(0)
    block = randomise(build_block(Arch(**TINY | dict(embed_dim=64), **options)))
    case = block, torch.randn(2, grid[0] * grid[1], 64), grid, 4, bf16
    padded = any(side % 4 for side in grid)
    for found, expected in zip(run(attend_in_windows, *case), run(cut_before, *case), strict=True):
        assert padded or found.equal(expected)
        assert (found - expected).norm() <= (1e-2 if bf16 else 1e-5) * expected.norm()


def test_a_window_sees_itself_alone():
    torch.manual_seed(0)
    block = randomise(build_block(Arch(**TINY), WindowBlock))
    tokens = torch.randn(1, 6, 9, 16)
    result = block(tokens.flatten(1, 2), (6, 9), 3).unflatten(1, (6, 9))
    for row in (0, 3):
        for column in (0, 3, 6):
            crop = tokens[:, row:row + 3, column:column + 3].flatten(1, 2)
            expected = block(crop, (3, 3), 0).unflatten(1, (3, 3))
            torch.testing.assert_close(result[:, row:row + 3, column:column + 3], expected, atol=1e-5, rtol=1e-5)


def test_gradient_through_padded_windows():
    torch.manual_seed(0)
    block = randomise(build_block(Arch(embed_dim=4, depth=1, num_heads=2), WindowBlock)).double()
    tokens = torch.randn(1, 6, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: block(x, (3, 2), 2), tokens)


@pytest.mark.parametrize('silent', ['mlp.fc2', 'attn.proj'])
def test_stochastic_depth_drops_whole_images_not_windows(silent):
    torch.manual_seed(0)
    block = randomise(build_block(Arch(**TINY), WindowBlock))
    for parameter in block.get_submodule(silent).parameters():
        nn.init.zeros_(parameter)
    tokens = torch.randn(32, 16, 16)
    branch = block(tokens, (4, 4), 2) - tokens
    set_drop_path([block], [.5])
    dropped = block.train()(tokens, (4, 4), 2) - tokens
    kept = dropped.flatten(1).any(1)
    assert 0 < kept.sum() < 32
    torch.testing.assert_close(dropped, 2 * branch * kept[:, None, None], atol=1e-5, rtol=1e-5)


# --- the backbone

def test_global_taps_equal_the_classifiers_blocks():
    torch.manual_seed(0)
    arch = TINY | dict(patch_size=16, img_size=224)
    vit = randomise(VisionTransformer(arch))
    model = ViTBackbone(arch, (1, 3), cls_token=True)
    weights = {k: v for k, v in vit.state_dict().items() if k.split('.')[0] not in ('norm', 'head')}
    model.load_state_dict(weights)
    images = torch.randn(2, 3, 224, 224)
    tokens, expected = vit.stem(images), []
    for block in vit.blocks:
        tokens = block(tokens)
        expected.append(tokens[:, 1:].reshape(2, 14, 14, 16).permute(0, 3, 1, 2))
    for output, reference in zip(model(images), (expected[1], expected[3]), strict=True):
        torch.testing.assert_close(output, reference)


def test_windows_are_used_except_in_the_global_blocks():
    torch.manual_seed(0)
    model = randomise(ViTBackbone(TINY, (0, 1, 2, 3), window_size=2, global_blocks=(2, )))
    images = torch.randn(1, 3, 16, 16)
    other = images.clone()
    other[..., 12:, 12:] += 1
    changed = [(a != b).any(1)[0] for a, b in zip(model(images), model(other), strict=True)]
    corner = torch.zeros(4, 4, dtype=torch.bool)
    corner[2:, 2:] = True
    assert changed[0].equal(corner) and changed[1].equal(corner) and changed[2].all()


@pytest.mark.parametrize('prefix', [0, 1])
@pytest.mark.parametrize('grid', [(6, 6), (9, 4), (4, 9), (12, 12), (3, 3)])
def test_position_embedding_equals_plain_interpolation(grid, prefix):
    torch.manual_seed(0)
    model = randomise(ViTBackbone(TINY, (3, ), cls_token=bool(prefix)))
    nn.init.zeros_(model.patch_embed.proj.weight), nn.init.zeros_(model.patch_embed.proj.bias)
    tokens, seen = model.stem(torch.randn(1, 3, 4 * grid[0], 4 * grid[1]))
    learned = model.pos_embed[:, prefix:].transpose(1, 2).reshape(1, 16, 6, 6)
    expected = F.interpolate(learned, grid, mode='bicubic', align_corners=False, antialias=False).flatten(2)
    assert seen == grid
    torch.testing.assert_close(tokens[:, prefix:], expected.transpose(1, 2), atol=1e-5, rtol=1e-5)
    if prefix:
        torch.testing.assert_close(tokens[:, 0], (model.cls_token + model.pos_embed)[:, 0])


def test_odd_sizes_are_padded_with_zeros_at_the_right_and_bottom():
    torch.manual_seed(0)
    model = ViTBackbone(TINY, (3, ), window_size=4, global_blocks=(3, ))
    images = torch.randn(1, 3, 18, 31)
    output, = model(images)
    assert output.shape == (1, 16, 5, 8)
    torch.testing.assert_close(output, model(F.pad(images, (0, 1, 0, 2)))[0])


@pytest.mark.parametrize('arguments', [
    dict(out_indices=(3, )),
    dict(out_indices=(0, 1, 3), tap_norm=True, window_size=4, global_blocks=(1, 3)),
    dict(out_indices=(1, 3), tap_norm=True, cls_token=True),
    dict(out_indices=(1, 3), arch=TINY | dict(init_values=.1), window_size=4),
])
def test_every_parameter_is_used(arguments):
    torch.manual_seed(0)
    model = ViTBackbone(**{'arch': TINY} | arguments)
    weighted_sum(model(torch.randn(2, 3, 20, 28))).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_drop_path_rises_from_zero_to_the_rate():
    model = ViTBackbone(TINY, (3, ), drop_path_rate=.3)
    rates = [getattr(block.drop_path2, 'drop_prob', 0) for block in model.blocks]
    assert rates == pytest.approx([0, .1, .2, .3])


@pytest.mark.parametrize('tap_norm', [False, True])
def test_maps_are_float32_under_autocast(tap_norm):
    with torch.autocast('cpu', torch.bfloat16):
        output, = ViTBackbone(TINY, (3, ), tap_norm=tap_norm, window_size=4)(torch.randn(1, 3, 16, 16))
    assert output.dtype == torch.float32


@pytest.mark.parametrize('arguments, message', [
    (dict(out_indices=(1, 2)), 'out_indices.*last block, 3'),
    (dict(out_indices=(1, 4)), 'out_indices'),
    (dict(out_indices=(3, 1)), 'out_indices'),
    (dict(out_indices=(-1, 3)), 'out_indices'),
    (dict(out_indices=()), 'out_indices'),
    (dict(cls_token=True, window_size=4), 'cls_token=True needs global attention'),
    (dict(window_size=-1), 'window_size=-1'),
    (dict(window_size=4, global_blocks=(3, 4)), r'global_blocks=\[4\]'),
    (dict(init_cfg=dict(type='Xavier')), 'Pretrained'),
    (dict(init_cfg=dict(type='Pretrained')), 'Pretrained'),
    (dict(init_cfg=dict(type='Pretrained', checkpoint=None)), 'Pretrained'),
    (dict(init_cfg=dict(type='Pretrained', checkpoint='f', prefx='backbone.')), 'Pretrained'),
    (dict(init_cfg=[dict(type='Pretrained', checkpoint='f')]), 'Pretrained'),
])
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        ViTBackbone(**dict(arch=TINY, out_indices=(3, )) | arguments)


# --- loading

@pytest.fixture
def weights():
    torch.manual_seed(1)
    return {key: value.clone() for key, value in randomise(VisionTransformer(TINY)).state_dict().items()}


@pytest.fixture
def build(tmp_path):
    """A backbone whose `init_cfg` names a file with the given tensors."""
    def make(tensors, **arguments):
        save_file(tensors, tmp_path / 'vit.safetensors')
        init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'vit.safetensors'))
        return ViTBackbone(**dict(arch=TINY, out_indices=(3, )) | arguments, init_cfg=init_cfg)
    return make


def test_loading_takes_all_and_reports_it_once(weights, build, monkeypatch):
    lines = []
    monkeypatch.setattr(backbone, 'print_log', lambda text, **_: lines.append(text))
    model = build(weights, cls_token=True)
    model.init_weights()
    state = model.state_dict()
    assert all(state[key].equal(weights[key]) for key in state)
    assert set(weights) - set(state) == {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}
    assert f'{len(state)}/{len(state)} keys' in model.load_report['coverage']
    assert 'head.weight' in model.load_report['coverage'] and 'pos_embed' not in model.load_report['coverage']
    nn.init.zeros_(model.pos_embed)
    model.init_weights()
    assert not model.pos_embed.any()
    assert len(lines) == 1 and 'vit.safetensors' in lines[0] and model.load_report['coverage'] in lines[0]


def test_an_unused_class_token_is_dropped_with_its_row(weights, build):
    model = build(weights)
    model.init_weights()
    assert model.pos_embed.equal(weights['pos_embed'][:, 1:])
    assert 'cls_token' in model.load_report['coverage'] and 'class token row dropped' in model.load_report['coverage']


def test_tap_norms_are_fresh(weights, build):
    model = build(weights, tap_norm=True)
    model.init_weights()
    assert 'tap_norms' in model.load_report['coverage']
    assert model.tap_norms[0].weight.eq(1).all() and model.tap_norms[0].bias.eq(0).all()


@pytest.mark.parametrize('cls_token', [False, True])
def test_another_grid_is_resized_and_reported(weights, build, cls_token):
    model = build(weights, arch=TINY | dict(img_size=32), cls_token=cls_token)
    model.init_weights()
    learned = weights['pos_embed'][:, 1:].transpose(1, 2).reshape(1, 16, 6, 6)
    expected = F.interpolate(learned, (8, 8), mode='bicubic').flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.pos_embed.data[:, int(cls_token):], expected)
    assert 'resized from 6x6 to 8x8' in model.load_report['coverage']
    if cls_token:
        assert model.pos_embed[:, 0].equal(weights['pos_embed'][:, 0])


def test_without_a_file_the_start_is_random_and_timms():
    torch.manual_seed(0)
    model = ViTBackbone(TINY | dict(embed_dim=64), (3, ))
    model.init_weights()
    assert model.load_report is None
    assert model.pos_embed.std().item() == pytest.approx(.02, rel=.1)
    assert model.blocks[0].attn.qkv.weight.std().item() == pytest.approx(.02, rel=.1)
    assert not model.blocks[0].attn.qkv.bias.any()


def without(tensors, key):
    return {k: v for k, v in tensors.items() if k != key}


@pytest.mark.parametrize('change, arguments, culprit', [
    (lambda t: without(t, 'blocks.1.mlp.fc1.bias'), {}, 'blocks.1.mlp.fc1.bias'),
    (lambda t: without(t, 'pos_embed'), {}, 'pos_embed'),
    (lambda t: t | {'blocks.4.norm1.weight': torch.ones(16)}, {}, 'blocks.4.norm1.weight'),
    (lambda t: t | {'dist_token': torch.ones(1, 1, 16)}, {}, 'dist_token'),
    (lambda t: t, dict(arch=TINY | dict(depth=3), out_indices=(2, )), 'blocks.3'),
    (lambda t: t, dict(arch=TINY | dict(qkv_bias=False)), 'qkv.bias'),
    (lambda t: t, dict(arch=TINY | dict(init_values=.1)), 'ls1.gamma'),
    (lambda t: t | {'pos_embed': torch.ones(1, 35, 16)}, {}, 'not a square grid'),
])
def test_a_file_that_does_not_match_is_refused(weights, build, change, arguments, culprit):
    with pytest.raises(CheckpointError, match=culprit) as raised:
        build(change(weights), **arguments).init_weights()
    assert 'vit.safetensors' in str(raised.value)


@pytest.mark.parametrize('field, value', [('num_heads', 4), ('norm_eps', 1e-5)])
def test_a_header_that_contradicts_the_arch_is_refused(weights, tmp_path, field, value):
    path = str(tmp_path / 'vit.safetensors')
    write_tensors(path, weights, dict(arch=Arch(**TINY).to_dict()))
    init_cfg = dict(type='Pretrained', checkpoint=path)
    ViTBackbone(TINY, (3, ), init_cfg=init_cfg).init_weights()
    with pytest.raises(CheckpointError, match=f'vit.safetensors.*{field}={value}'):
        ViTBackbone(TINY | {field: value}, (3, ), init_cfg=init_cfg).init_weights()
