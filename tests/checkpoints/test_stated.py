"""config.json beside a file says what its names and shapes do not: another function is refused, another arch named."""
import argparse
import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from mmincubation.checkpoints import CheckpointError, inspect_weights, load_vit, write_tensors
from mmincubation.checkpoints.convert import convert
from mmincubation.downstream import ViTBackbone
from mmincubation.models import VisionTransformer, ViTClassifier
from tests.helpers.weight_files import ARCH, hf_names, random_vit

HF = dict(model_type='vit', hidden_size=16, num_hidden_layers=4, num_attention_heads=2, layer_norm_eps=1e-6,
          patch_size=4, hidden_act='gelu', qkv_bias=True, image_size=16)
TIMM = dict(architecture='vit_tiny_patch16_224', num_classes=5, model_args=dict(
    embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=16))


def written(folder, config: dict | str | None, names=hf_names) -> str:
    state = names(random_vit().state_dict())
    save_file({key: value.clone() for key, value in state.items()}, folder / 'model.safetensors')
    if config is not None:
        (folder / 'config.json').write_text(config if isinstance(config, str) else json.dumps(config))
    return str(folder / 'model.safetensors')


def readers(path: str, folder, arch=ARCH) -> tuple:
    init_cfg = dict(type='Pretrained', checkpoint=path)
    return (ViTBackbone(arch, (3, ), init_cfg=init_cfg).init_weights,
            ViTClassifier(arch.to_dict(), init_cfg=init_cfg).init_weights,
            lambda: load_vit(VisionTransformer(arch), path))


def coverage(path: str) -> str:
    return load_vit(VisionTransformer(ARCH), path)['coverage']


@pytest.mark.parametrize('change, said', [
    (dict(hidden_act='quick_gelu'), 'config.json: hidden_act=quick_gelu, this ViT computes gelu'),
    (dict(hidden_act='gelu_pytorch_tanh'), 'hidden_act=gelu_pytorch_tanh'),
    (dict(hidden_act='relu'), 'hidden_act=relu'),
    (dict(use_swiglu_ffn=True), 'use_swiglu_ffn=true')])
def test_another_function_of_transformers_is_refused(tmp_path, change, said):
    path = written(tmp_path, HF | change)
    for read in (*readers(path, tmp_path), lambda: convert(path, tmp_path / 'b.safetensors'),
                 lambda: inspect_weights(path)):
        with pytest.raises(CheckpointError, match=said):
            read()


@pytest.mark.parametrize('change, said', [
    (dict(layer_norm_eps=1e-12), 'says norm_eps=1e-12, the model has norm_eps=1e-06; set norm_eps=1e-12 in arch'),
    (dict(num_attention_heads=4), 'says num_heads=4, the model has num_heads=2; set num_heads=4 in arch')])
def test_another_arch_is_refused_until_it_is_set(tmp_path, change, said):
    path = written(tmp_path, HF | change)
    for read in readers(path, tmp_path):
        with pytest.raises(CheckpointError, match=said):
            read()
    fields = dict(num_heads=change.get('num_attention_heads', 2), norm_eps=change.get('layer_norm_eps', 1e-6))
    for read in readers(path, tmp_path, type(ARCH)(**ARCH.to_dict() | fields)):
        read()
    assert fields.items() <= inspect_weights(path).arch.items()
    assert fields.items() <= convert(path, tmp_path / 'b.safetensors').arch.items()


def test_what_agrees_is_said_and_nothing_is_assumed(tmp_path):
    said = coverage(written(tmp_path, HF))
    assert 'config.json: model_type=vit, hidden_act=gelu, num_attention_heads=2, layer_norm_eps=1e-06' in said
    assert 'assumed' not in said


@pytest.mark.parametrize('config, said', [
    (None, 'assumed, the file does not say it: activation=GELU, num_heads=2, norm_eps=1e-06, global_pool=token'),
    (dict(lr=.1), 'assumed, the file does not say it: activation=GELU'), ('[1]', 'assumed'),
    ('{"model_type": ', r'config.json cannot be read \(.*\): not used; assumed'),
    (HF | dict(hidden_size=768, hidden_act='relu'), 'another network .hidden_size=768, .*: not used; assumed'),
    (dict(architecture='vit_of_tomorrow'), 'architecture=vit_of_tomorrow is not in timm .*: not used; assumed'),
    (dict(architecture='resnet18'), 'architecture=resnet18 makes no ViT in timm .*: not used; assumed'),
    (dict(architecture='vit_tiny_patch16_224'), 'describes another network .embed_dim=192.*: not used; assumed'),
    (TIMM | dict(model_args=dict(embed_dim=16, num_heads=2, depth=10**9)), 'depth=1000000000; .*: not used; assumed'),
    (TIMM | dict(model_args=[1]), 'describes another network')])
def test_what_is_not_known_is_said(tmp_path, config, said):
    assert re.search(said, coverage(written(tmp_path, config)))


def test_pooling_is_assumed_where_the_files_head_is_loaded(tmp_path):
    path = written(tmp_path, None)
    init_cfg = dict(type='Pretrained', checkpoint=path)
    models = {'global_pool=token': ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg),
              'a new head': ViTClassifier(ARCH.to_dict(), init_cfg=dict(init_cfg, fresh=('head', ))),
              'no head': ViTBackbone(ARCH, (3, ), init_cfg=init_cfg)}
    for said, model in models.items():
        model.init_weights()
        assert ('global_pool' in model.load_report['coverage']) == (said == 'global_pool=token')


def test_our_headers_say_all(tmp_path):
    write_tensors(tmp_path / 'model.safetensors', random_vit().state_dict(), dict(arch=ARCH.to_dict()))
    (tmp_path / 'config.json').write_text(json.dumps(HF | dict(hidden_act='relu')))
    said = coverage(str(tmp_path / 'model.safetensors'))
    assert '100.0 %' in said and 'config.json' not in said and 'assumed' not in said


def test_a_converted_file_keeps_what_was_assumed(tmp_path):
    path = written(tmp_path, None)
    convert(path, tmp_path / 'b.safetensors', arch=dict(num_heads=2))
    said = coverage(str(tmp_path / 'b.safetensors'))
    assert 'assumed when it was converted: ' in said and 'activation=GELU' in said and 'norm_eps' in said


# --- timm

def plain(state: dict) -> dict:
    return state


@pytest.mark.parametrize('change, said', [
    (dict(architecture='vit_base_patch16_rpn_224'), 'has ResPostBlock instead of Block'),
    (dict(act_layer='quick_gelu'), 'has the activation QuickGELU'),
    (dict(act_layer='gelu_tanh'), 'the activation GELUTanh'),
    (dict(norm_layer='rmsnorm'), 'has the norm RmsNorm'),
    (dict(num_heads=4), 'says num_heads=4, the model has num_heads=2')])
def test_another_function_of_timm_is_refused(tmp_path, change, said):
    """Its layers are built by timm itself, whose arguments they come from."""
    config = TIMM | {key: value for key, value in change.items() if key == 'architecture'}
    args = TIMM['model_args'] | {key: value for key, value in change.items() if key != 'architecture'}
    path = written(tmp_path, config | dict(model_args=args), plain)
    for read in readers(path, tmp_path):
        with pytest.raises(CheckpointError, match=f'config.json: architecture.*{said}'):
            read()


def test_timms_pooling_is_compared(tmp_path):
    args = TIMM['model_args'] | dict(fc_norm=False)
    path = written(tmp_path, TIMM | dict(global_pool='avg', model_args=args), plain)
    with pytest.raises(CheckpointError, match="=avg, the model has global_pool=token; set global_pool='avg'"):
        coverage(path)
    arch = ARCH.to_dict() | dict(global_pool='avg')
    images = torch.randn(2, 3, 16, 16)
    classifier = ViTClassifier(arch, init_cfg=dict(type='Pretrained', checkpoint=path))
    classifier.init_weights()
    model = timm.create_model('vit_tiny_patch16_224', num_classes=5, global_pool='avg', **args).eval()
    model.load_state_dict(random_vit().state_dict())
    torch.testing.assert_close(classifier.eval().vit(images), model(images), atol=1e-5, rtol=1e-5)


def test_no_argument_of_a_config_reads_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(timm.models._builder, 'load_pretrained', lambda *_, **__: pytest.fail('weights are read'))
    monkeypatch.setattr(timm.models, 'load_checkpoint', lambda *_, **__: pytest.fail('a checkpoint is read'))
    args = TIMM['model_args'] | dict(pretrained=True, checkpoint_path='/etc/passwd', pretrained_cfg=dict(file='x'))
    assert 'a plain ViT' in coverage(written(tmp_path, TIMM | dict(model_args=args), plain))


def test_timms_own_checkpoints_name_their_model(tmp_path):
    """train.py of timm stores the name as `arch`, and other arguments in `args`."""
    model = timm.create_model('vit_tiny_patch16_224', num_classes=5, act_layer=nn.SiLU, **TIMM['model_args'])
    args = argparse.Namespace(model_kwargs=TIMM['model_args'] | dict(act_layer='silu'))
    torch.save(dict(arch='vit_tiny_patch16_224', state_dict=model.state_dict(), args=args), tmp_path / 'a.pth.tar')
    with pytest.raises(CheckpointError, match='arch=vit_tiny_patch16_224 has the activation SiLU'):
        coverage(str(tmp_path / 'a.pth.tar'))
    args.model_kwargs['act_layer'] = 'gelu'
    torch.save(dict(arch='vit_tiny_patch16_224', state_dict=model.state_dict(), args=args), tmp_path / 'b.pth.tar')
    assert 'arch=vit_tiny_patch16_224, in timm' in coverage(str(tmp_path / 'b.pth.tar'))
    args.model_kwargs['fc_norm'], args.gp = False, 'avg'
    torch.save(dict(arch='vit_tiny_patch16_224', state_dict=model.state_dict(), args=args), tmp_path / 'c.pth.tar')
    with pytest.raises(CheckpointError, match='arch says global_pool=avg, the model has global_pool=token'):
        coverage(str(tmp_path / 'c.pth.tar'))
