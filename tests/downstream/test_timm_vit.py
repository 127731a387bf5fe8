"""timm's ViTs as backbones: exact against timm, any size, layers, strict loading, in a detector and a segmentor."""
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mmincubation.checkpoints import CheckpointError
from mmincubation.checkpoints.networks import name_network, way_in
from mmincubation.downstream import TimmViT
from mmincubation.engine.compiling import compile_blocks
from mmincubation.engine.optim import ViTOptimWrapperConstructor
from tests.downstream.test_backbone import randomise, weighted_sum
from tests.helpers.weight_files import dinov2_hf_names

SMALL = dict(embed_dim=48, depth=3, num_heads=3)
REGISTERS = 'vit_small_patch14_reg4_dinov2'  # with LayerScale and patches of 14
DINOV3 = 'vit_small_patch16_dinov3'
CLIP = 'vit_base_patch16_clip_224'
NAMES = {REGISTERS: 14, 'vit_small_patch14_dinov2': 14, 'vit_giant_patch14_dinov2': 14, DINOV3: 16,
         'eva02_tiny_patch14_224': 14, CLIP: 16,
         'deit3_small_patch16_224': 16, 'vit_base_patch16_siglip_224': 16, 'eva02_enormous_patch14_clip_224': 14,
         'vit_base_patch16_rope_mixed_224': 16, 'deit_tiny_distilled_patch16_224': 16}


def timms(name: str, **more) -> nn.Module:
    """timm's model as timm makes it, with norm and head, for images of 4 x 4 patches."""
    torch.manual_seed(0)
    return randomise(timm.create_model(name, **SMALL, img_size=4 * NAMES[name], num_classes=5, **more)).eval()


def ours(name: str, **more) -> TimmViT:
    torch.manual_seed(1)
    arguments = dict(out_indices=(0, 2), img_size=4 * NAMES[name], model_args=SMALL)
    return TimmViT(name, **arguments | more)


def loaded(name: str, folder, tensors: dict, **more) -> TimmViT:
    """Our backbone with the weights of a file."""
    torch.save(tensors, folder / 'a.pth')
    model = ours(name, init_cfg=dict(type='Pretrained', checkpoint=str(folder / 'a.pth')), **more)
    model.init_weights()
    return model.eval()


def images(rows: int, columns: int) -> torch.Tensor:
    return torch.randn(2, 3, rows, columns, generator=torch.Generator().manual_seed(1))


def maps_of(model: nn.Module, inputs: torch.Tensor) -> list[torch.Tensor]:
    return model.forward_intermediates(inputs, indices=[0, 2], intermediates_only=True)


# --- what it computes

@pytest.mark.parametrize('name', NAMES)
def test_maps_are_timms(name, tmp_path):
    theirs, side = timms(name), 4 * NAMES[name]
    model = loaded(name, tmp_path, theirs.state_dict())
    for found, expected in zip(model(images(side, side)), maps_of(theirs, images(side, side)), strict=True):
        assert found.shape == (2, 48, 4, 4) and found.is_contiguous()
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize('name', NAMES)
def test_other_sizes_are_padded_and_positions_follow(name, tmp_path):
    """timm at the padded size, fixed when it is built, has its positions resized when the file is loaded."""
    theirs, patch = timms(name), NAMES[name]
    other = timm.create_model(name, **SMALL, img_size=4 * patch, num_classes=5).eval()
    other.load_state_dict(theirs.state_dict())
    other.set_input_size((5 * patch, 3 * patch))
    inputs = images(4 * patch + 3, 3 * patch - 5)
    padded = nn.functional.pad(inputs, (0, 5, 0, patch - 3))
    found = loaded(name, tmp_path, theirs.state_dict())(inputs)
    for one, expected in zip(found, maps_of(other, padded), strict=True):
        assert one.shape == (2, 48, 5, 3)
        torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', NAMES)
def test_every_parameter_has_a_gradient_and_a_layer(name):
    model = ours(name, tap_norm=True).train()
    weighted_sum(model(images(40, 50))).backward()
    assert [key for key, value in model.named_parameters() if value.grad is None] == []
    layers = {key: model.layer_of(key) for key, _ in model.named_parameters()}
    assert set(layers.values()) == {0, 1, 2, 3, 4} and model.num_layers == 3
    for key, layer in layers.items():
        block = re.match(r'vit\.blocks\.(\d)', key)
        assert layer == (int(block[1]) + 1 if block else 4 if key.startswith('tap_norms') else 0)


@pytest.mark.parametrize('name', [REGISTERS, DINOV3])
def test_checkpointing_changes_no_number_and_bfloat16_little(name):
    def run(**more):
        model = ours(name, drop_path_rate=.5, tap_norm=True, **more).train()
        torch.manual_seed(2)
        outputs = model(images(40, 50))
        weighted_sum(outputs).backward()
        return outputs, [value.grad for value in model.parameters()]

    (outputs, gradients), (again, same), (half, _) = run(), run(with_cp=True), run(bf16=True)
    assert all(map(torch.equal, [*outputs, *gradients], [*again, *same]))
    for found, expected in zip(half, outputs, strict=True):
        assert found.dtype == torch.float32 and not found.equal(expected)
        torch.testing.assert_close(found, expected, atol=.2, rtol=.05)


def test_stochastic_depth_rises_from_zero_to_the_rate():
    blocks = ours(DINOV3, drop_path_rate=.2).vit.blocks
    assert [getattr(block.drop_path1, 'drop_prob', 0) for block in blocks] == pytest.approx([0, .1, .2])
    branch, drop = torch.ones(4000, 5, 3), blocks[2].drop_path2
    dropped = drop.train()(branch)
    assert set(dropped.unique().tolist()) == {0., 1.25} and (dropped == dropped[:, :1, :1]).all()
    assert dropped.mean().item() == pytest.approx(1, abs=.05) and drop.eval()(branch) is branch


@pytest.mark.parametrize('name', [REGISTERS, DINOV3])
def test_blocks_with_different_rates_compile_as_two_kinds(name):
    """Those with stochastic depth and the first without."""
    model = ours(name, drop_path_rate=.5, model_args=SMALL | dict(depth=6), out_indices=(5, )).train()
    torch.manual_seed(2)
    expected, kinds = model(images(40, 50))[0], []
    assert compile_blocks(model, dict(backend=lambda graph, _: kinds.append(1) or graph.forward))
    torch.manual_seed(2)
    torch.testing.assert_close(model(images(40, 50))[0], expected)
    assert len(kinds) == 2


def test_a_frozen_backbone_keeps_nothing_and_trains_its_new_norms():
    model = ours(DINOV3, frozen=True, tap_norm=True, drop_path_rate=.5, with_cp=True).train()
    assert not any(module.training for module in model.modules())
    outputs = model(images(40, 50))
    assert all(map(torch.equal, outputs, model(images(40, 50))))  # no stochastic depth
    weighted_sum(outputs).backward()
    assert {key.split('.')[0] for key, value in model.named_parameters() if value.grad is not None} == {'tap_norms'}
    kept = ours(DINOV3, frozen=True)(images(40, 50))
    assert not any(tap.requires_grad for tap in kept)


# --- files

def dinov2(state: dict) -> dict:
    """The names of DINOv2's authors, who add a position to the class token."""
    row = torch.full((1, 1, 48), .25)
    out = dict(state, register_tokens=state['reg_token'], cls_token=state['cls_token'] - row,
               pos_embed=torch.cat([row, state['pos_embed']], 1), mask_token=torch.zeros(1, 48))
    return {key: value for key, value in out.items() if key != 'reg_token'}


def dinov2_giant(state: dict) -> dict:
    """Those of their largest model, which has gated MLPs."""
    out = {key.replace('mlp.fc1', 'mlp.w12').replace('mlp.fc2', 'mlp.w3'): value for key, value in state.items()}
    return out | dict(mask_token=torch.zeros(1, 48))


def dinov3(state: dict) -> dict:
    """The names of DINOv3's authors."""
    out = {key.replace('gamma_', 'ls') + '.gamma' * ('gamma_' in key): value for key, value in state.items()}
    out['storage_tokens'] = out.pop('reg_token')
    biases = {f'blocks.{i}.attn.qkv.bias{end}': torch.zeros(144) for i in range(3) for end in ('', '_mask')}
    return out | biases | {'rope_embed.periods': torch.ones(4), 'mask_token': torch.zeros(1, 48)}


def openai(state: dict) -> dict:
    """The names of CLIP's authors, with a text network beside."""
    names = (('norm_pre', 'ln_pre'), ('attn.qkv.', 'attn.in_proj_'), ('attn.proj', 'attn.out_proj'),
             ('patch_embed.proj', 'conv1'), ('blocks.', 'transformer.resblocks.'), ('.norm', '.ln_'),
             ('mlp.fc1', 'mlp.c_fc'), ('mlp.fc2', 'mlp.c_proj'))
    out = {}
    for key, value in state.items():
        for old, new in names:
            key = key.replace(old, new)
        out[f'visual.{key}'.replace('visual.norm', 'visual.ln_post')] = value
    out['visual.class_embedding'] = out.pop('visual.cls_token')[0, 0]
    out['visual.positional_embedding'] = out.pop('visual.pos_embed')[0]
    out['visual.proj'] = out.pop('visual.head.weight').T
    return {key: value for key, value in out.items() if key != 'visual.head.bias'} | {'text_projection': torch.ones(2)}


@pytest.mark.parametrize('name, change', [
    (REGISTERS, dinov2), ('vit_giant_patch14_dinov2', dinov2_giant), (DINOV3, dinov3), (CLIP, openai),
    (CLIP, lambda s: {f'visual.trunk.{key}': value for key, value in s.items()}),
    ('deit3_small_patch16_224', lambda s: dict(model={re.sub(r'ls(\d)\.gamma', r'gamma_\1', k): v
                                                      for k, v in s.items()})),
    ('eva02_tiny_patch14_224', lambda s: {f'visual.{k}': v for k, v in s.items()} | {'text.w': torch.ones(2)}),
    ('vit_small_patch14_dinov2', lambda s: dinov2_hf_names(s) | {'dinov2.embeddings.mask_token': torch.ones(1, 48)}),
    (REGISTERS, lambda s: dinov2_hf_names(dinov2(s))),
    (DINOV3, lambda s: dict(state_dict={f'backbone.vit.{k}': v for k, v in s.items()}))])  # of a run of ours
def test_files_of_authors_and_runs_load_exactly(name, change, tmp_path):
    theirs, side = timms(name), 4 * NAMES[name]
    model = loaded(name, tmp_path, change(theirs.state_dict()))
    for found, expected in zip(model(images(side, side)), maps_of(theirs, images(side, side)), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_report_says_what_arrived(tmp_path):
    state = timms(REGISTERS).state_dict()
    save_file(state, tmp_path / 'model.safetensors')
    (tmp_path / 'config.json').write_text('{"architecture": "vit_small_patch14_reg4_dinov2"}')
    model = ours(REGISTERS, tap_norm=True, img_size=84,
                 init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path)))
    model.init_weights()
    report, size = model.load_report, len(model.vit.state_dict())
    assert report['path'] == str(tmp_path) and re.fullmatch('[0-9a-f]{64}', report['sha256'])
    for part in (f'{size}/{size} keys, 100.0 %', 'dropped by name: head.bias, head.weight, norm.bias',
                 'resized by timm: pos_embed', 'architecture=vit_small_patch14_reg4_dinov2', 'fresh: tap_norms'):
        assert part in report['coverage']
    before = model.load_report
    model.init_weights()
    assert model.load_report is before


@pytest.mark.parametrize('name, change, said', [
    (REGISTERS, lambda s: {k: v for k, v in s.items() if k != 'reg_token'}, '1 missing: reg_token 1x4x48'),
    (REGISTERS, lambda s: s | {'blocks.0.extra': torch.ones(2)}, '1 unexpected: blocks.0.extra'),
    (REGISTERS, lambda s: s | {'cls_token': torch.ones(1, 1, 8)}, '1 misshaped: cls_token 1x1x8 in the file'),
    (REGISTERS, lambda s: s | {'cls_token': torch.full((1, 1, 48), torch.nan)}, 'cls_token has values that are not'),
    (REGISTERS, lambda s: s | {'cls_token': torch.ones(1, 1, 48, dtype=torch.int8)}, 'cls_token holds torch.int8'),
    (CLIP, lambda s: dict(model=s, arch='vit_base_patch16_clip_quickgelu_224'), 'arch=vit_base_patch16_clip_quickgelu'),
    (CLIP, lambda s: dict(a=s, b={k: v + 1 for k, v in s.items()}), 'holds different ViTs'),
    (DINOV3, lambda s: dinov3(s) | {'blocks.1.attn.qkv.bias': torch.ones(144)}, "name='vit_small_patch16_dinov3_qkvb'"),
    (REGISTERS, lambda s: timm.create_model('resnet18').state_dict(), 'a.pth: this is a ResNet'),
    (REGISTERS, lambda s: {'a.weight': torch.ones(2)}, "give timm's file. Its first keys are a.weight")])
def test_a_file_that_does_not_match_is_one_line(name, change, said, tmp_path):
    with pytest.raises(CheckpointError) as error:
        loaded(name, tmp_path, change(timms(name).state_dict()))
    assert said in str(error.value) and '\n' not in str(error.value)


# --- arguments

@pytest.mark.parametrize('arguments, said', [
    (dict(name='vit_smal_patch14_dinov2'), 'nearest: vit_small_patch14_dinov2'),
    (dict(name='hf-hub:timm/vit_tiny_patch16_224'), 'has no model'), (dict(name='resnet50'), "'resnet50' is a ResNet"),
    (dict(name='vit_tiny_r_s16_p8_224'), 'is a HybridEmbed'), (dict(name='beit_base_patch16_224'), 'is a Beit'),
    (dict(model_args=dict(embed_dimm=3)), 'model_args.embed_dimm is no argument.*nearest: embed_dim'),
    (dict(model_args=dict(pretrained=True)), 'model_args.pretrained is no argument'),
    (dict(model_args=dict(embed_dim=48, num_heads=5)), 'cannot build'),
    (dict(drop_path_rate=1.), 'drop_path_rate=1.0: give a number'),
    (dict(out_indices=(0, 1)), 'end at the last block, 2'), (dict(out_indices=(2, 0)), 'increasing'),
    (dict(init_cfg='a.pth'), "TimmViT: init_cfg=a.pth; give dict")])
def test_wrong_arguments_are_one_line(arguments, said):
    with pytest.raises(ValueError, match=said) as error:
        TimmViT(**dict(name=REGISTERS, out_indices=(2, ), model_args=SMALL) | arguments)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', [
    *NAMES, 'beit_base_patch16_224', 'beit3_base_patch16_224', 'vit_base_patch16_18x2_224', 'samvit_base_patch16',
    'vit_relpos_base_patch16_224', 'swin_tiny_patch4_window7_224', 'convnext_tiny', 'resnet18', 'cait_xxs24_224',
    'xcit_tiny_12_p16_224', 'vit_tiny_r_s16_p8_224', 'vit_base_patch16_xp_224'])
def test_who_refuses_a_network_says_whether_this_backbone_takes_it(name):
    with torch.device('meta'):
        model = timm.create_model(name)
        if (network := name_network(model.state_dict())) is None:  # a plain ViT
            return
        try:
            TimmViT(name, (len(model.blocks) - 1, ) if hasattr(model, 'blocks') else (0, ))
        except ValueError:
            assert way_in(network) == ''
        else:
            assert 'mmincubation.TimmViT' in way_in(network)


def test_layer_decay():
    model = nn.ModuleDict(dict(backbone=ours(REGISTERS), head=nn.Linear(2, 2)))
    make = ViTOptimWrapperConstructor(dict(optimizer=dict(type='SGD', lr=1.)), dict(layer_decay=.5))
    scales = {id(p): (g['lr_scale'], g['decay_scale']) for g in make(model).optimizer.param_groups for p in g['params']}
    found = {key: scales[id(value)] for key, value in model.named_parameters()}
    for key, expected in {'backbone.vit.patch_embed.proj.weight': (1 / 16, 1), 'backbone.vit.reg_token': (1 / 16, 0),
                          'backbone.vit.blocks.0.attn.qkv.weight': (1 / 8, 1), 'head.weight': (1, 1),
                          'backbone.vit.blocks.2.ls1.gamma': (1 / 2, 0)}.items():
        assert found[key] == expected
