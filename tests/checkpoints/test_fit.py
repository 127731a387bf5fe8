"""Weights in models of another geometry: patch size, image size, classes; and ViT-H, of which there are two."""
import json

import pytest
import torch
import torch.nn.functional as F
from timm.layers.patch_embed import resample_patch_embed

from mmincubation.checkpoints import CheckpointError, load_vit, read_tensors, read_vit, sha256_of, write_tensors
from mmincubation.checkpoints.convert import convert
from mmincubation.checkpoints.fit import fit_patch, load_pretrained
from mmincubation.demo.sources import photos
from mmincubation.downstream import ViTBackbone
from mmincubation.engine import launch, loading
from mmincubation.models import Arch, VisionTransformer, ViTClassifier
from tests.helpers import toy
from tests.helpers.weight_files import ARCH, FILES, arch_for, equal, random_vit, stages_of, write_file


def init_cfg(path, **more):
    return dict(type='Pretrained', checkpoint=str(path), **more)


def changed(**change) -> dict:
    return {**ARCH.to_dict(), **change}


# --- patch kernel

def resized(images, side, mode='bicubic'):
    return F.interpolate(images, (side, side), mode=mode, antialias=True, align_corners=False)


def off(result, expected) -> float:
    return ((result - expected).norm() / expected.norm()).item()


def responses(images, kernel):
    return F.conv2d(images, kernel, stride=kernel.shape[-1])


def photographs():
    images = [torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float() for photo in photos('train')]
    return (torch.cat([resized(image, 224) for image in images]) / 255 - .45) / .225


@pytest.mark.parametrize('old, new', [(14, 16), (4, 8), (3, 7)])
def test_pi_resize_is_exact_on_resized_patches(old, new):
    """Its definition: <new kernel, resized patch> = <kernel, patch> for every patch."""
    torch.manual_seed(0)
    kernel, patches = torch.randn(8, 3, old, old), torch.randn(32, 3, old, old)
    tensors, done = fit_patch({'patch_embed.proj.weight': kernel}, new)
    result = responses(resized(patches, new), tensors['patch_embed.proj.weight'])
    torch.testing.assert_close(result, responses(patches, kernel), atol=1e-3, rtol=1e-3)
    assert done == [f'patch_embed.proj.weight: PI-resized from {old}x{old} to {new}x{new}']
    assert fit_patch({'patch_embed.proj.weight': kernel}, old) == ({'patch_embed.proj.weight': kernel}, [])


def test_pi_resize_on_photographs_against_interpolating_the_kernel():
    """224 to 256 pixels, patch 14 to 16; docs/guides/weights.md quotes what this prints (pytest -s)."""
    torch.manual_seed(0)
    images, kernel = photographs(), torch.randn(256, 3, 14, 14)
    expected = responses(images, kernel)
    kernels = {'PI-resize': resample_patch_embed(kernel, [16, 16])}
    kernels |= {f'{mode} kernel': F.interpolate(kernel, (16, 16), mode=mode) for mode in ('bicubic', 'bilinear')}
    errors = {(name, image): off(responses(resized(images, 256, image), new), expected)
              for name, new in kernels.items() for image in ('bicubic', 'bilinear')}
    for (name, image), error in errors.items():
        print(f'{name}, image resized by {image}: {100 * error:.1f} % off')
    assert errors['PI-resize', 'bicubic'] < .01 and errors['PI-resize', 'bilinear'] < .05
    assert all(error > .25 for (name, _), error in errors.items() if name != 'PI-resize')


def test_the_backbone_takes_patch_14_weights_with_patch_16(tmp_path):
    arch = Arch.parse(changed(patch_size=14, img_size=56))
    vit = random_vit(arch)
    write_tensors(tmp_path / 'a.safetensors', vit.state_dict(), dict(arch=arch.to_dict()))
    model = ViTBackbone(changed(patch_size=16, img_size=48), (3, ), init_cfg=init_cfg(tmp_path / 'a.safetensors'))
    model.init_weights()
    expected = resample_patch_embed(vit.patch_embed.proj.weight.detach(), [16, 16])
    assert torch.equal(model.patch_embed.proj.weight, expected)
    assert torch.equal(model.patch_embed.proj.bias, vit.patch_embed.proj.bias)
    coverage = model.load_report['coverage']
    assert '100.0 %' in coverage and 'PI-resized from 14x14 to 16x16' in coverage and 'from 4x4 to 3x3' in coverage


# --- the classifier

def test_the_classifier_loads_all_and_says_so(tmp_path):
    path, state = write_file(tmp_path, 'ours.safetensors')
    model = ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg(path))
    assert model.load_report is None and not equal(model.vit.state_dict(), state)
    model.init_weights()
    assert equal(model.vit.state_dict(), state)
    assert model.load_report['sha256'] == sha256_of(path) and '100.0 %' in model.load_report['coverage']
    torch.nn.init.zeros_(model.vit.pos_embed)
    model.init_weights()
    assert not model.vit.pos_embed.any()  # a second call changes nothing
    fresh = ViTClassifier(ARCH.to_dict())
    fresh.init_weights()
    assert fresh.load_report is None


@pytest.mark.parametrize('img_size, side', [(24, 6), (8, 2)])
def test_a_higher_resolution_resizes_the_position_embedding(tmp_path, img_size, side):
    path, state = write_file(tmp_path, 'official.pth')
    model = ViTClassifier(changed(img_size=img_size), init_cfg=init_cfg(path))
    model.init_weights()
    learned = state['pos_embed'][:, 1:].transpose(1, 2).reshape(1, 16, 4, 4)
    expected = F.interpolate(learned, (side, side), mode='bicubic', antialias=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(model.vit.pos_embed.data[:, 1:], expected)
    assert torch.equal(model.vit.pos_embed[:, :1], state['pos_embed'][:, :1])
    assert f'pos_embed: resized from 4x4 to {side}x{side}' in model.load_report['coverage']
    assert equal(model.vit.blocks.state_dict(), random_vit().blocks.state_dict())


@pytest.mark.parametrize('name, classes, message', [
    ('deit.pth', 7, "num_classes=5 .the model has 7.*fresh=.'head',. in init_cfg.*head.weight 5x16 in the file, 7x16"),
    ('mae.pth', 5, "the file has no head; fresh=.'head',. in init_cfg begins it anew. 2 missing: head.weight"),
])
def test_another_head_must_be_named(tmp_path, name, classes, message):
    path, state = write_file(tmp_path, name)
    arch = changed(num_classes=classes)
    with pytest.raises(CheckpointError, match=message):
        ViTClassifier(arch, init_cfg=init_cfg(path)).init_weights()
    model = ViTClassifier(arch, init_cfg=init_cfg(path, fresh=('head', )))
    before = model.vit.head.weight.clone()
    model.init_weights()
    assert torch.equal(model.vit.head.weight, before) and torch.equal(model.vit.norm.bias, state['norm.bias'])
    assert '; fresh: head.weight, head.bias' in model.load_report['coverage']


def test_a_pooled_head_is_named_too(tmp_path):
    state = {key.replace('norm', 'fc_norm') if key.startswith('norm') else key: value
             for key, value in random_vit().state_dict().items()}
    torch.save(dict(model=state), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match="fc_norm, which this ViT has not; fresh=.'head', 'norm'. in init_cfg"):
        ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg(tmp_path / 'a.pth')).init_weights()
    model = ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg(tmp_path / 'a.pth', fresh=('head', 'norm')))
    model.init_weights()
    assert equal(model.vit.blocks.state_dict(), random_vit().blocks.state_dict())


def test_what_shapes_do_not_show_is_compared(tmp_path):
    path, _ = write_file(tmp_path, 'ours.safetensors')
    for field, value in (('num_heads', 4), ('norm_eps', 1e-5), ('global_pool', 'avg')):
        with pytest.raises(CheckpointError, match=f'the model has {field}={value}; set it in arch'):
            ViTClassifier(changed(**{field: value}), init_cfg=init_cfg(path)).init_weights()
    ViTClassifier(changed(global_pool='avg'), init_cfg=init_cfg(path, fresh=('head', ))).init_weights()


@pytest.mark.parametrize('wrong', [
    dict(type='Xavier'), dict(type='Pretrained'), dict(type='Pretrained', checkpoint=''), 'vit.pth',
    dict(type='Pretrained', checkpoint='f', prefx='backbone.')])
def test_a_wrong_init_cfg_is_named(wrong):
    with pytest.raises(ValueError, match=r'ViTClassifier: init_cfg=.*checkpoint=PATH, prefix=\.\.\., fresh=\.\.\.'):
        ViTClassifier(ARCH.to_dict(), init_cfg=wrong)


def test_a_run_starts_from_the_file_and_reports_it(tmp_path):
    """Training at a higher resolution through the launcher, at learning rate 0."""
    toy.write_images(tmp_path / 'images', 2)
    arch = Arch.parse(toy.ARCH)
    small = random_vit(Arch.parse({**arch.to_dict(), 'img_size': 16}))
    write_tensors(tmp_path / 'small.safetensors', small.state_dict(), dict(arch=small.arch.to_dict()))
    cfg = toy.e2e_config(tmp_path / 'images', tmp_path / 'out', epochs=1)
    cfg.model.init_cfg = init_cfg(tmp_path / 'small.safetensors')
    cfg.param_scheduler, cfg.optim_wrapper.optimizer.lr = [], 0.
    cfg.dump(str(tmp_path / 'run.py'))
    assert launch.train(toy.arguments(tmp_path / 'run.py')) == 0
    tensors = read_vit(tmp_path / 'out/weights/e2e_last.safetensors')[0]
    assert tensors.pop('pos_embed').shape == (1, 5, 16)
    assert equal(tensors, {key: value for key, value in small.state_dict().items() if key != 'pos_embed'})
    weights = json.loads((tmp_path / 'out/result.json').read_text())['weights']
    assert weights['sha256'] == sha256_of(tmp_path / 'small.safetensors') and 'from 4x4 to 2x2' in weights['coverage']


def test_phases_and_tests_load_without_resizing(tmp_path):
    path, _ = write_file(tmp_path, 'timm.pth')
    with pytest.raises(CheckpointError, match='pos_embed 1x17x16 in the file, 1x37x16 in the model'):
        load_vit(VisionTransformer(changed(img_size=24)), path)


@pytest.mark.parametrize('name', FILES)
def test_a_classifier_is_tested_with_any_whole_file(tmp_path, name):
    path, state = write_file(tmp_path, name)
    model = ViTClassifier(arch_for(name))
    if 'head.weight' not in state:
        with pytest.raises(CheckpointError, match='2 missing: head.weight'):
            loading.load_for_test(model, str(path), read_tensors(path)[0], {})
    else:
        assert '100.0 %' in loading.load_for_test(model, str(path), read_tensors(path)[0], {})
        assert equal(model.vit.state_dict(), state)


# --- ViT-H

SHORT = dict(depth=1, img_size=28, mlp_ratio=.1, num_classes=2)  # vit_huge's width, without its length
OURS = dict(name='vit_huge', **SHORT)
TIMMS = dict(OURS, qkv_bias=True, norm_eps=1e-6)


@pytest.fixture(scope='module')
def huge(tmp_path_factory):
    """ViT-H by the public code, by timm, and one with a header that says otherwise."""
    folder = tmp_path_factory.mktemp('huge')
    states = {}
    for name, arch in (('official', OURS), ('timm', TIMMS)):
        states[name] = {key: value.bfloat16() for key, value in VisionTransformer(arch).state_dict().items()}
    torch.save(dict(model_stages=stages_of(states['official'], [1])), folder / 'official.pth')
    torch.save(states['timm'], folder / 'timm.pth')
    return folder


def loaders(arch, path):
    """The three ways in."""
    return (ViTBackbone(arch, (0, ), init_cfg=init_cfg(path)).init_weights,
            ViTClassifier(arch, init_cfg=init_cfg(path)).init_weights,
            lambda: load_vit(VisionTransformer(arch), path))


@pytest.mark.parametrize('name, arch', [('official', OURS), ('timm', TIMMS)])
def test_each_vit_h_loads_into_its_own_architecture(huge, name, arch):
    for load in loaders(arch, huge / f'{name}.pth'):
        load()


@pytest.mark.parametrize('name, arch, message', [
    ('official', TIMMS, 'qkv_bias=False .the model has True.*1 missing: blocks.0.attn.qkv.bias 3840'),
    ('official', dict(OURS, norm_eps=1e-6), 'vit_huge with norm_eps=1e-05, the model has norm_eps=1e-06; set'),
    ('timm', OURS, 'qkv_bias=True .the model has False.*norm_eps that belongs.*1 unexpected: blocks.0.attn.qkv.bias'),
    ('timm', dict(OURS, qkv_bias=True), "timm's ViT-H with norm_eps=1e-06, the model has norm_eps=1e-05; set norm_eps"),
])
def test_each_vit_h_refuses_the_other(huge, name, arch, message):
    for load in loaders(arch, huge / f'{name}.pth'):
        with pytest.raises(CheckpointError, match=message) as error:
            load()
        assert '\n' not in str(error.value)


def test_a_header_decides_over_what_is_known(huge, tmp_path):
    convert(str(huge / 'official.pth'), tmp_path / 'plain.safetensors')
    convert(str(huge / 'official.pth'), tmp_path / 'other.safetensors', arch=dict(norm_eps=1e-6))
    other = dict(OURS, norm_eps=1e-6)
    for arch, name, wrong in ((OURS, 'plain', 'other'), (other, 'other', 'plain')):
        load_vit(VisionTransformer(arch), tmp_path / f'{name}.safetensors')
        with pytest.raises(CheckpointError, match='made with norm_eps=1e-0.*set it in arch'):
            load_vit(VisionTransformer(arch), tmp_path / f'{wrong}.safetensors')


def test_a_slip_in_fresh_is_named(tmp_path):
    vit = VisionTransformer(ARCH)
    write_tensors(tmp_path / 'a.safetensors', vit.state_dict(), {})
    with pytest.raises(CheckpointError, match="init_cfg.fresh: 'haed' is no layer of the model or of .*norm, head"):
        load_pretrained(vit, tmp_path / 'a.safetensors', ('haed', ))
