"""Every format is recognised, read under timm's names, described, and loaded by the backbone."""
import copy
import re

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import ExponentialMovingAverage
from safetensors.torch import save_file
from torch import nn

from mmincubation.checkpoints import (
    CheckpointError,
    inspect_weights,
    open_vit,
    read_vit,
    sha256_of,
    write_tensors,
)
from mmincubation.checkpoints.convert import convert
from mmincubation.downstream import ViTBackbone
from mmincubation.models import ViTClassifier
from tests.helpers.weight_files import (
    ARCH,
    DIVISION,
    FILES,
    arch_for,
    equal,
    headless,
    hf_names,
    random_vit,
    write_file,
)


@pytest.mark.parametrize('name', FILES)
def test_every_format_is_recognised_and_read(tmp_path, name):
    path, state = write_file(tmp_path, name)
    weights = open_vit(path)
    assert weights.format == FILES[name][0]
    assert equal(weights.tensors, state)
    known = name.startswith(('official', 'ours'))
    assert weights.division == (DIVISION if known else None)


@pytest.mark.parametrize('name, note', [
    ('mae.pth', r'left out by name: .*mask_token.*decoder_pos_embed.*decoder_blocks\.0\.norm1\.weight'),
    ('dinov2.pth', 'left out by name: mask_token$'),
    ('hf_model.safetensors', 'vit.embeddings.mask_token.*vit.pooler.dense.bias|vit.pooler.*mask_token'),
    ('deit_train.pth', 'model_ema is left out'),
    ('timm_train.pth.tar', 'EMA weights .state_dict_ema.*left out'),
    ('timm.pth', None), ('official.pth', None),
])
def test_what_is_left_out_is_said(tmp_path, name, note):
    notes = open_vit(write_file(tmp_path, name)[0]).notes
    assert len(notes) == (note is not None)
    assert note is None or re.search(note, notes[0])


def test_mmengines_ema_is_what_a_runner_would_evaluate(tmp_path):
    """The hook itself writes the checkpoint: state_dict then holds the averaged weights."""
    model = ViTClassifier(ARCH)
    hook = EMAHook()
    hook.src_model, hook.ema_model = model, ExponentialMovingAverage(model)
    averaged = copy.deepcopy(model.vit.state_dict())
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    checkpoint = dict(state_dict=model.state_dict())
    hook.before_save_checkpoint(None, checkpoint)
    torch.save(checkpoint, tmp_path / 'epoch_1.pth')
    weights = open_vit(tmp_path / 'epoch_1.pth')
    assert equal(weights.tensors, averaged) and not equal(weights.tensors, model.vit.state_dict())
    assert weights.format == 'mmengine' and 'EMA weights' in weights.notes[0] and 'ema_state_dict' in weights.notes[0]


def test_the_row_of_a_class_token_that_is_gone(tmp_path):
    """As in ViTDet's files, which keep the row of the class token and not the token."""
    vit = random_vit()
    state = {key: value for key, value in headless(vit.state_dict()).items() if key != 'cls_token'}
    torch.save(state, tmp_path / 'a.pth')
    weights = open_vit(tmp_path / 'a.pth')
    assert torch.equal(weights.tensors['pos_embed'], state['pos_embed'][:, 1:])
    backbone = ViTBackbone(ARCH, (3, ), init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    backbone.init_weights()
    assert 'left out the row of a class token, which the file lacks' in backbone.load_report['coverage']
    assert torch.equal(backbone.pos_embed, state['pos_embed'][:, 1:])
    assert inspect_weights(tmp_path / 'a.pth').arch['img_size'] == 16


@pytest.mark.parametrize('name', ['reg_token', 'register_tokens'])
def test_extra_tokens_are_refused(tmp_path, name):
    state = {**random_vit().state_dict(), name: torch.ones(1, 4, 16)}
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'a\.pth: this is .* register tokens \({name} of shape \(1, 4, 16\)'):
        read_vit(tmp_path / 'a.pth')


@pytest.mark.parametrize('header', [dict(arch=[1]), dict(division='4'), dict(division=[1, '3']), dict(assumed='all')])
def test_a_damaged_header_is_named(tmp_path, header):
    write_tensors(tmp_path / 'a.safetensors', random_vit().state_dict(), header)
    with pytest.raises(CheckpointError, match='a.safetensors: damaged header .*convert the file again'):
        inspect_weights(tmp_path / 'a.safetensors')


def test_half_of_a_qkv_is_refused(tmp_path):
    named = hf_names(random_vit().state_dict())
    del named['vit.encoder.layer.2.attention.attention.key.bias']
    save_file({key: value.clone() for key, value in named.items()}, tmp_path / 'a.safetensors')
    with pytest.raises(CheckpointError, match=r'a\.safetensors: blocks\.2\.attn\.q\.bias is there without .*k\.bias'):
        open_vit(tmp_path / 'a.safetensors')


# --- inspection

@pytest.mark.parametrize('name', FILES)
def test_inspection_of_every_format(tmp_path, name):
    path, state = write_file(tmp_path, name)
    info = inspect_weights(path)
    assert (info.format, info.sha256, info.keys) == (FILES[name][0], sha256_of(path), len(state))
    assert info.parameters == sum(value.numel() for value in state.values())
    shown = dict(embed_dim=16, depth=4, patch_size=4, img_size=16, mlp_ratio=4., qkv_bias=True,
                 num_classes=5 if FILES[name][2] else 0)
    assert shown.items() <= info.arch.items()
    assert ('init_values' in info.arch and info.arch['init_values'] is not None) == name.startswith('dinov2')
    if name == 'ours.safetensors':
        assert info.arch == ARCH.to_dict() and info.assumed == [] and info.header['division'] == DIVISION
    else:
        assert info.header == {} and 'num_heads' in info.assumed[0]
    assert ('global_pool' in info.arch) == (info.format != 'mmengine')


def test_inspection_checks_the_hash_in_a_name(tmp_path):
    path, _ = write_file(tmp_path, 'deit.pth')
    start = sha256_of(path)[:8]
    for name in (f'deit-{start}.pth', 'deit-20240131.pth', 'deit_00000000.pth'):
        assert inspect_weights(path.rename(tmp_path / name)).keys
        path = tmp_path / name
    wrong = path.rename(tmp_path / 'deit_base-b5f2ef4d.pth')
    with pytest.raises(CheckpointError, match=f'b5f2ef4d.pth: named after .* begins with b5f2ef4d.*{start}'):
        inspect_weights(wrong)


def test_inspection_of_less_than_a_vit(tmp_path):
    state = random_vit().state_dict()
    del state['pos_embed']
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match="a.pth: no whole ViT, 'pos_embed' is missing"):
        inspect_weights(tmp_path / 'a.pth')


def test_transformers_epsilon_is_not_guessed(tmp_path):
    arch = type(ARCH)(embed_dim=192, depth=1, num_heads=3, patch_size=16, img_size=32, num_classes=2)
    state = random_vit(arch).state_dict()
    save_file({key: value.clone() for key, value in hf_names(state).items()}, tmp_path / 'a.safetensors')
    info = inspect_weights(tmp_path / 'a.safetensors')
    assert info.arch['num_heads'] == 3 and 'norm_eps' not in info.arch and 'norm_eps' in info.assumed[0]


# --- the backbone

@pytest.mark.parametrize('name', FILES)
@pytest.mark.parametrize('cls_token', [False, True])
def test_the_backbone_takes_every_format(tmp_path, name, cls_token):
    path, state = write_file(tmp_path, name)
    arch = dict(arch_for(name).to_dict(), num_classes=1000)
    settings = dict(arch=arch, out_indices=(1, 3), cls_token=cls_token, window_size=0 if cls_token else 2)
    model = ViTBackbone(**settings, init_cfg=dict(type='Pretrained', checkpoint=str(path)))
    model.init_weights()
    body = {key: value for key, value in state.items() if key.split('.')[0] not in ('norm', 'head')}
    if not cls_token:
        body['pos_embed'] = body['pos_embed'][:, 1:]
        del body['cls_token']
    assert equal(model.state_dict(), body)
    assert f'{len(body)}/{len(body)} keys, 100.0 %' in model.load_report['coverage']
    for note in open_vit(path).notes:
        assert note in model.load_report['coverage']
    reference = ViTBackbone(**settings)
    reference.load_state_dict(body)
    images = torch.randn(1, 3, 16, 16)
    assert all(torch.equal(a, b) for a, b in zip(model.eval()(images), reference.eval()(images), strict=True))


def test_a_pooled_head_is_dropped_by_the_backbone(tmp_path):
    """MAE's fine-tuned files and timm's pooled ViTs have fc_norm instead of norm."""
    state = {re.sub('^norm', 'fc_norm', key): value for key, value in random_vit().state_dict().items()}
    torch.save(dict(model=state), tmp_path / 'a.pth')
    model = ViTBackbone(ARCH, (3, ), init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    model.init_weights()
    assert 'dropped by name' in model.load_report['coverage'] and 'fc_norm.weight' in model.load_report['coverage']


def modules(*layers) -> dict:
    """The tensors of layers in a Sequential."""
    return {f'head.{key}': value for key, value in nn.Sequential(*layers).state_dict().items()}


HEADS = {
    "MoCo v3's": modules(nn.Linear(16, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)),
    "MAE's linear probe": modules(nn.BatchNorm1d(16, affine=False), nn.Linear(16, 5)),
    "DINO's": {'head.mlp.0.weight': torch.ones(8, 16), 'head.mlp.0.bias': torch.ones(8),
               'head.last_layer.weight_g': torch.ones(9, 1), 'head.last_layer.weight_v': torch.ones(9, 8)},
    'a convolution': {'head.weight': torch.ones(5, 16, 1, 1), 'head.bias': torch.ones(5)},
    'scaled': {'head.weight': torch.ones(5, 16), 'head.scale': torch.ones(1)},
    "transformers'": {'classifier.0.weight': torch.ones(5, 16), 'classifier.0.bias': torch.ones(5)},
}


@pytest.mark.parametrize('kind', HEADS)
def test_a_head_that_is_no_linear_classifier_is_left_out(tmp_path, kind):
    body = headless(random_vit().state_dict())
    named = hf_names(body) if kind.startswith('transformers') else body
    torch.save(dict(model=named | HEADS[kind] | {'head.count': torch.tensor(1)}), tmp_path / 'a.pth')
    weights, path = open_vit(tmp_path / 'a.pth'), str(tmp_path / 'a.pth')
    assert equal(weights.tensors, body) and '(no linear classifier)' in weights.notes[-1]
    assert all(name in weights.notes[-1] for name in HEADS[kind]) or 'and 2 more' in weights.notes[-1]
    done = convert(path, tmp_path / 'b.safetensors', arch=dict(num_heads=2, norm_eps=1e-6))
    assert done.arch['num_classes'] == 0 and weights.notes[-1] in done.assumed
    with pytest.raises(CheckpointError, match=r"the file has no head; fresh=\('head',\) in init_cfg begins it anew"):
        ViTClassifier(ARCH, init_cfg=dict(type='Pretrained', checkpoint=path)).init_weights()
    ViTClassifier(ARCH, init_cfg=dict(type='Pretrained', checkpoint=path, fresh=('head', ))).init_weights()


def test_dinos_checkpoint_gives_its_teacher(tmp_path):
    """The command of docs/guides/weights.md; iBOT's is alike and has masked_embed."""
    body = headless(random_vit().state_dict())
    inner = body | {'masked_embed': torch.zeros(1, 16)}
    below = {f'backbone.{key}': value for key, value in inner.items()} | HEADS["DINO's"]
    torch.save(dict(teacher=below, student={f'module.{key}': value + 1 for key, value in below.items()}),
               tmp_path / 'checkpoint.pth')
    convert(str(tmp_path / 'checkpoint.pth'), tmp_path / 'teacher.safetensors', prefix='teacher')
    torch.save(dict(student=inner), tmp_path / 'ibot.pth')
    convert(str(tmp_path / 'ibot.pth'), tmp_path / 'ibot.safetensors')
    assert equal(open_vit(tmp_path / 'teacher.safetensors').tensors, body)
    assert equal(open_vit(tmp_path / 'ibot.safetensors').tensors, body)


def test_a_linear_head_without_a_bias_gets_zeros(tmp_path):
    state = random_vit().state_dict()
    torch.save({key: value for key, value in state.items() if key != 'head.bias'}, tmp_path / 'a.pth')
    weights = open_vit(tmp_path / 'a.pth')
    assert equal(weights.tensors, state | {'head.bias': torch.zeros(5)})
    assert weights.notes == ['head.bias: zeros added, the file has none']


def test_quantised_weights_are_refused_still(tmp_path):
    torch.save(random_vit().state_dict() | {'head.weight': torch.ones(5, 16, dtype=torch.int8)}, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='head.weight holds torch.int8, quantised weights'):
        open_vit(tmp_path / 'a.pth')


def test_layer_scale_needs_init_values(tmp_path):
    path, _ = write_file(tmp_path, 'dinov2.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    with pytest.raises(CheckpointError, match=r'init_values=1e-05 .the model has None.; set arch .*ls1\.gamma'):
        ViTBackbone(ARCH, (3, ), init_cfg=init_cfg).init_weights()
    path, _ = write_file(tmp_path, 'timm.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(path))
    with pytest.raises(CheckpointError, match='init_values=None .the model has 1e-05.'):
        ViTBackbone(arch_for('dinov2'), (3, ), init_cfg=init_cfg).init_weights()


def test_a_header_survives_other_names(tmp_path):
    write_tensors(tmp_path / 'a.safetensors', hf_names(random_vit().state_dict()), dict(arch=ARCH.to_dict()))
    weights = open_vit(tmp_path / 'a.safetensors')
    assert weights.format == 'hf' and weights.header['arch']['num_heads'] == 2
    assert headless(weights.tensors).keys() == headless(random_vit().state_dict()).keys()
