"""Containers and prefixes around a ViT: the one place is found, several are listed and chosen, nothing is guessed."""
import re

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mmincubation.checkpoints import CheckpointError, inspect_weights, open_vit
from mmincubation.checkpoints.convert import convert
from mmincubation.downstream import ViTBackbone
from mmincubation.models import ViTClassifier
from tests.helpers.weight_files import ARCH, equal, headless, hf_names, mmpretrain_names, random_vit


def below(prefix: str, state: dict, plus: float = 0.) -> dict:
    return {f'{prefix}{key}': value + plus for key, value in state.items()}


def chunked(state: dict) -> dict:
    """As DINOv2's own training names the blocks: two chunks of two."""
    names = {f'blocks.{n}.': f'blocks.{n // 2}.{n}.' for n in range(4)}
    return {next((key.replace(a, b, 1) for a, b in names.items() if key.startswith(a)), key): value
            for key, value in state.items()}


def compiled_blocks(state: dict) -> dict:
    return {key.replace('.attn.', '._orig_mod.attn.').replace('blocks.', '_fsdp_wrapped_module.blocks.'): value
            for key, value in state.items()}


VIT = random_vit()
STATE = VIT.state_dict()
# name: (what is saved, where it is said to be taken from)
WHOLE = {
    'compiled': (torch.compile(VIT).state_dict(), None),
    'ddp_of_compiled': (below('module._orig_mod.', STATE), None),
    'compiled_ddp': (dict(model=below('_orig_mod.module.', STATE), epoch=1), None),
    'data_parallel_twice': (below('module.module.', STATE), None),
    'parts_compiled': (compiled_blocks(STATE), None),
    'averaged': (AveragedModel(VIT).state_dict(), None),
    'averaged_mmengine': (dict(state_dict={**below('module.', STATE), 'steps': torch.tensor(3)}), None),
    'lightning': (dict(state_dict=below('model.', STATE), hyper_parameters=dict(lr=.1), epoch=3), None),
    'lightning_deeper': (dict(state_dict=below('net.encoder.', STATE) | {'criterion.weight': torch.ones(2)}),
                         r'left out beside state_dict\.net\.encoder: criterion \(1\)$'),
    'tutorial': (dict(model_state_dict=STATE, optimizer_state_dict=dict(state={0: dict(exp_avg=torch.ones(2))})), None),
    'net': (dict(net=STATE, acc=.5), None),
    'deepspeed': (dict(module=STATE, dp_world_size=8), None),
    'nested': (dict(checkpoint=dict(weights=dict(network=STATE))), None),
    'dinov2_teacher': (dict(teacher=below('backbone.', chunked(STATE)) | {'dino_head.mlp.0.weight': torch.ones(2)}),
                       r'left out beside teacher\.backbone: dino_head \(1\)$'),
    'twice_the_same': (dict(model=STATE, teacher=below('backbone.', STATE)), None),
    'hf_in_lightning': (dict(state_dict=below('model.', hf_names(STATE))), None),
    'mmpretrain_ddp': (dict(state_dict=below('module.', mmpretrain_names(STATE))), None),
    'holds_itself': ((held := dict(model=STATE)) | dict(a=held, b=[held]), None),
}


@pytest.mark.parametrize('name', WHOLE)
@pytest.mark.parametrize('suffix', ['.pth', '.ckpt'])
def test_a_whole_vit_is_found_below_any_prefix(tmp_path, name, suffix):
    content, said = WHOLE[name]
    torch.save(content, tmp_path / f'a{suffix}')
    weights = open_vit(tmp_path / f'a{suffix}')
    assert equal(weights.tensors, STATE) and len(weights.notes) == (said is not None)
    assert said is None or re.search(said, weights.notes[0])


SEVERAL = {
    'dino': (dict(student=below('module.backbone.', STATE, 1), teacher=below('backbone.', STATE), epoch=3),
             "at 'student.backbone', at 'teacher.backbone'", 'teacher'),
    'dinov2_fsdp': (dict(model=below('teacher.backbone.', STATE) | below('student.backbone.', STATE, 1)),
                    "at 'model.teacher.backbone', at 'model.student.backbone'", 'teacher.backbone.'),
    'moco_v3': (dict(state_dict=below('module.base_encoder.', STATE) | below('module.momentum_encoder.', STATE, 1)),
                "at 'state_dict.base_encoder', at 'state_dict.momentum_encoder'", 'module.base_encoder.'),
    'lightning_ema': (dict(state_dict=below('model.', STATE, 1) | below('ema_model.module.', STATE)),
                      "at 'state_dict.model', at 'state_dict.ema_model'", 'ema_model'),
    'beside_a_prefix': (STATE | below('old.', STATE, 1), "the file itself, at 'old'", None),
}


@pytest.mark.parametrize('name', SEVERAL)
def test_several_are_listed_and_chosen_by_prefix(tmp_path, name):
    content, listed, prefix = SEVERAL[name]
    torch.save(content, path := tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=f'a.pth: holds different ViTs, {listed}: choose one, by prefix'):
        open_vit(path)
    if prefix is None:
        return
    assert equal(open_vit(path, prefix).tensors, STATE)
    assert inspect_weights(path, prefix).keys == len(STATE)
    init_cfg = dict(type='Pretrained', checkpoint=str(path), prefix=prefix)
    models = ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg), ViTBackbone(ARCH, (3, ), init_cfg=init_cfg)
    for model in models:
        model.init_weights()
        assert re.search(f'taken from .*{prefix.removeprefix("module.").strip(".")}.*, as prefix says', model.load_report['coverage'])
    assert equal(models[0].vit.state_dict(), STATE) and equal(models[1].blocks.state_dict(), VIT.blocks.state_dict())
    convert(str(path), tmp_path / 'b.safetensors', arch=dict(num_heads=2, norm_eps=1e-6), prefix=prefix)
    assert equal(open_vit(tmp_path / 'b.safetensors').tensors, STATE)


def test_a_prefix_that_is_not_there_is_named(tmp_path):
    torch.save(dict(model=STATE), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r"no ViT below the prefix 'backbone\.', but at 'model'; leave prefix out"):
        open_vit(tmp_path / 'a.pth', 'backbone.')
    torch.save(dict(conv=torch.ones(1)), tmp_path / 'b.pth')
    with pytest.raises(CheckpointError, match='no ViT in a known format; its first keys are conv'):
        open_vit(tmp_path / 'b.pth', 'backbone.')


def test_averaged_weights_of_the_programs_own_choice(tmp_path):
    """An explicit prefix gives the other ones."""
    contents = dict(
        timm=(dict(state_dict=below('', STATE, 1), state_dict_ema=STATE), 'state_dict'),
        deit=(dict(model=STATE, model_ema=AveragedModel(VIT).state_dict() | below('module.', STATE, 1)), 'model_ema'),
        mmengine=(dict(state_dict=below('vit.', STATE), ema_state_dict=below('module.vit.', STATE, 1)), 'ema_state_dict'),
        incubation=(dict(state_dict=below('target.', STATE) | below('meta.', STATE, 1)), 'meta'))
    for name, (content, other) in contents.items():
        torch.save(content, tmp_path / f'{name}.pth')
        weights = open_vit(tmp_path / f'{name}.pth')
        assert equal(weights.tensors, STATE) and 'left out' in ' '.join(weights.notes), name
        assert equal(open_vit(tmp_path / f'{name}.pth', other).tensors, below('', STATE, 1)), name


# --- our own detectors and segmentors

def write_segmentor(path, tap_norm=True, cls_token=False):
    backbone = ViTBackbone(ARCH, (1, 3), tap_norm=tap_norm, cls_token=cls_token)
    for parameter in backbone.parameters():
        nn.init.normal_(parameter)
    state = below('backbone.', backbone.state_dict()) | {'decode_head.conv_seg.weight': torch.ones(3, 16, 1, 1)}
    torch.save(dict(meta=dict(iter=4), state_dict=state), path)
    return backbone


@pytest.mark.parametrize('tap_norm', [False, True])
@pytest.mark.parametrize('cls_token', [False, True])
def test_a_segmentors_backbone_arrives_as_it_was(tmp_path, tap_norm, cls_token):
    trained = write_segmentor(tmp_path / 'iter_4.pth', tap_norm, cls_token)
    settings = dict(cls_token=cls_token, init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'iter_4.pth')))
    model = ViTBackbone(ARCH, (1, 3), tap_norm=tap_norm, **settings)
    model.init_weights()
    assert equal(model.state_dict(), trained.state_dict())
    assert 'left out beside state_dict.backbone: decode_head (1)' in model.load_report['coverage']
    other = ViTBackbone(ARCH, (0, 1, 3), tap_norm=True, **settings)
    other.init_weights()
    assert equal(other.blocks.state_dict(), trained.blocks.state_dict())
    assert all(norm.weight.eq(1).all() for norm in other.tap_norms)
    assert ('left out: 4 tensors tap_norms' in other.load_report['coverage']) == tap_norm


def test_a_segmentor_is_converted_to_a_backbone(tmp_path):
    trained = write_segmentor(tmp_path / 'iter_4.pth', cls_token=True)
    done = convert(str(tmp_path / 'iter_4.pth'), tmp_path / 'b.safetensors', arch=dict(num_heads=2, norm_eps=1e-6))
    assert done.source == 'mmengine' and any('tap_norms' in line for line in done.assumed)
    taps = {key for key in trained.state_dict() if key.startswith('tap_norms')}
    body = {key: value for key, value in trained.state_dict().items() if key not in taps}
    assert equal(open_vit(tmp_path / 'b.safetensors').tensors, body) and body.keys() < headless(STATE).keys()
