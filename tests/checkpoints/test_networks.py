"""Networks that are no plain ViT are named, and never called damaged; the ViTs of timm beside them load exactly."""
import pytest
import timm
import torch
import torchvision
from torch import nn

from mmincubation.checkpoints import CheckpointError, load_vit
from mmincubation.checkpoints.convert import convert
from mmincubation.checkpoints.networks import name_network
from mmincubation.downstream import ViTBackbone
from mmincubation.models import VisionTransformer, ViTClassifier
from tests.helpers.weight_files import ARCH, hf_names, mmpretrain_names, random_vit

SMALL = dict(embed_dim=48, depth=2, num_heads=3, num_classes=5)


def timms(name: str, **more) -> nn.Module:
    torch.manual_seed(0)
    model = timm.create_model(name, **SMALL, **more).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=.2)
    return model


def saved(folder, state: dict) -> str:
    torch.save(dict(model=state), folder / 'a.pth')
    return str(folder / 'a.pth')


def init_cfg(path: str, **more) -> dict:
    return dict(type='Pretrained', checkpoint=path, **more)


# --- other networks

@pytest.mark.parametrize('name, patch, what', [
    ('vit_giant_patch14_dinov2', 14, 'SwiGLU'), ('beit_base_patch16_224', 16, 'BEiT'),
    ('vit_small_patch16_dinov3', 16, 'rotary'), ('eva02_base_patch14_224', 14, 'SwiGLU'),
    ('eva_giant_patch14_224', 14, 'keys have no bias'), ('vit_base_patch16_siglip_224', 16, 'attention pooling'),
    ('vit_base_patch16_clip_224', 16, 'norm before its blocks'),
    ('vit_base_patch16_reg4_gap_256', 16, 'register tokens'),
    ('deit_base_distilled_patch16_224', 16, 'distilled DeiT'),
    ('vit_relpos_base_patch16_224', 16, 'relative positions'),
    ('beit3_base_patch16_224', 16, 'more norms'), ('vit_base_patch16_18x2_224', 16, 'side by side'),
    ('samvit_base_patch16', 16, 'relative positions')])
def test_timms_other_vits_are_named_by_every_reader(tmp_path, name, patch, what):
    path = saved(tmp_path, timms(name, img_size=4 * patch).state_dict())
    arch = dict(SMALL, patch_size=patch, img_size=4 * patch)
    said = set()
    for read in (ViTBackbone(arch, (1, ), init_cfg=init_cfg(path)).init_weights,
                 ViTClassifier(arch, init_cfg=init_cfg(path)).init_weights,
                 lambda: load_vit(VisionTransformer(arch), path), lambda: convert(path, tmp_path / 'b.safetensors')):
        with pytest.raises(CheckpointError, match=f'a.pth: this is .*{what}.*; only plain ViTs can be loaded') as error:
            read()
        said.add(str(error.value))
    assert len(said) == 1 and '\n' not in said.pop()  # loading and converting say the same


@pytest.mark.parametrize('build, what', [
    (torchvision.models.resnet18, 'a ResNet'), (torchvision.models.convnext_tiny, 'a ConvNeXt'),
    (torchvision.models.swin_t, 'a Swin'), (lambda: timm.create_model('convnext_tiny'), 'a ConvNeXt'),
    (lambda: timm.create_model('swin_tiny_patch4_window7_224'), 'a Swin'),
    (lambda: timm.create_model('vit_tiny_r_s16_p8_224'), 'a hybrid')])
def test_other_families_are_named(build, what):
    with torch.device('meta'):
        assert name_network(build().state_dict()).startswith(what)


@pytest.mark.parametrize('keys, what', [
    (['visual.transformer.resblocks.0.attn.in_proj_weight', 'token_embedding.weight'], 'CLIP or SigLIP'),
    (['text_model.embeddings.token_embedding.weight', 'vision_model.embeddings.class_embedding'], 'CLIP or SigLIP'),
    (['embeddings.class_embedding', 'pre_layrnorm.weight', 'encoder.layers.0.self_attn.q_proj.weight'], 'norm before'),
    (['embeddings.patch_embedding.weight', 'encoder.layers.0.self_attn.q_proj.weight'], "SigLIP's image network"),
    (['embeddings.register_tokens', 'layer.0.attention.o_proj.weight'], 'DINOv3'),
    (['embeddings.cls_token', 'encoder.layer.0.attention.attention.query.bias', 'encoder.layer.0.lambda_1'], 'BEiT'),
    (['backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table'], 'Swin'),
    (['encoder.layer.0.mlp.weights_in.weight'], 'SwiGLU'), (['blocks.0.mlp.w12.weight'], 'SwiGLU'),
    (['backbone.pre_norm.weight'], 'norm before'), (['deit.embeddings.distillation_token'], 'distilled')])
def test_names_of_other_programs(keys, what):
    assert what in name_network({key: torch.zeros(2, 2) for key in keys})


@pytest.mark.parametrize('change, what', [
    (lambda s: {k: v for k, v in s.items() if not k.endswith(('norm1.bias', 'norm2.bias'))}, 'norms have no bias'),
    (lambda s: s | {'patch_embed.proj.weight': torch.zeros(16, 3, 2, 4, 4)}, '5 dimensions'),
    (lambda s: s | {f'blocks.{i}.mlp.fc1.weight': torch.zeros(128, 16) for i in range(4)}, 'gated')])
def test_shapes_tell_too(change, what):
    assert what in name_network(change(random_vit().state_dict()))


@pytest.mark.parametrize('names', [lambda s: s, hf_names, mmpretrain_names, lambda s: hf_names(s, 'ijepa')])
def test_plain_vits_have_no_other_name(names):
    assert name_network(names(random_vit().state_dict())) is None


# --- plain ViTs that look unusual

@pytest.mark.parametrize('name, init_values', [('deit3_small_patch16_224', 1e-5), ('flexivit_small', None)])
def test_a_class_token_without_a_position_loads_exactly(tmp_path, name, init_values):
    """timm's no_embed_class; the right values are those of timm's own forward."""
    model, images = timms(name, img_size=64), torch.randn(2, 3, 64, 64)
    path, arch = saved(tmp_path, model.state_dict()), dict(SMALL, img_size=64, init_values=init_values)
    classifier = ViTClassifier(arch, init_cfg=init_cfg(path))
    backbone = ViTBackbone(arch, (1, ), cls_token=True, init_cfg=init_cfg(path))
    for module in (classifier, backbone):
        module.init_weights()
        assert 'row of zeros added for the class token' in module.load_report['coverage']
    maps = model.forward_intermediates(images, indices=[1], norm=False, intermediates_only=True)[0]
    torch.testing.assert_close(classifier.eval().vit(images), model(images), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(backbone.eval()(images)[0], maps, atol=1e-5, rtol=1e-5)
    convert(path, tmp_path / 'b.safetensors', arch=dict(num_heads=3, norm_eps=1e-6))
    converted = ViTClassifier(arch, init_cfg=init_cfg(str(tmp_path / 'b.safetensors')))
    converted.init_weights()
    torch.testing.assert_close(converted.eval().vit(images), model(images), atol=1e-5, rtol=1e-5)


def test_a_vit_without_a_class_token_is_a_backbone_without_one(tmp_path):
    """timm's gap models, and I-JEPA; converted too."""
    model, images = timms('vit_base_patch16_gap_224', img_size=64), torch.randn(2, 3, 64, 64)
    state = {key: value for key, value in model.state_dict().items() if not key.startswith('fc_norm')}
    path, arch = saved(tmp_path, state), dict(SMALL, img_size=64, qkv_bias='blocks.0.attn.qkv.bias' in state)
    convert(path, tmp_path / 'b.safetensors', arch=dict(num_heads=3, norm_eps=1e-6))
    maps = model.forward_intermediates(images, indices=[1], norm=False, intermediates_only=True)[0]
    for file in (path, str(tmp_path / 'b.safetensors')):
        backbone = ViTBackbone(arch, (1, ), init_cfg=init_cfg(file))
        backbone.init_weights()
        torch.testing.assert_close(backbone.eval()(images)[0], maps, atol=1e-5, rtol=1e-5)
        for module in (ViTBackbone(arch, (1, ), cls_token=True, init_cfg=init_cfg(file)),
                       ViTClassifier(arch, init_cfg=init_cfg(file))):
            with pytest.raises(CheckpointError, match='no class token; a ViTBackbone with cls_token=False takes it'):
                module.init_weights()


def test_torchvisions_vit_computes_the_same(tmp_path):
    torch.manual_seed(0)
    model = torchvision.models.VisionTransformer(16, 4, 4, 2, 16, 64, num_classes=5).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=.2)
    torch.save(model.state_dict(), tmp_path / 'a.pth')
    classifier = ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg(str(tmp_path / 'a.pth')))
    classifier.init_weights()
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(classifier.eval().vit(images), model(images), atol=1e-5, rtol=1e-5)


# --- what is known of a file that does not fit

@pytest.mark.parametrize('change, said, never', [
    (dict(embed_dim=32), r'embed_dim=16 \(the model has 32\); set arch', 'img_size='),
    (dict(depth=6), r'depth=4 \(the model has 6\); set arch', 'qkv_bias'),
    (dict(patch_size=8, img_size=32), r'patch_size=4 \(the model has 8\), img_size=16 \(the model', 'qkv_bias'),
    (dict(mlp_ratio=2.), r'mlp_ratio=4.0 \(the model has 2.0\)', 'qkv_bias'),
    (dict(init_values=.1), r'no LayerScale, init_values=None \(the model has', 'qkv_bias')])
def test_differing_fields_come_first(tmp_path, change, said, never):
    torch.save(random_vit().state_dict(), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=f"does not fit the model: the file's ViT has {said}") as error:
        load_vit(VisionTransformer({**ARCH.to_dict(), **change}), tmp_path / 'a.pth')
    assert never not in str(error.value) and 'fresh' not in str(error.value)  # nothing here can name fresh weights


@pytest.mark.parametrize('lost', ['blocks.2', 'blocks.3.attn.qkv.bias', 'blocks.1.mlp.fc2.weight'])
def test_a_part_of_a_vit_establishes_nothing(tmp_path, lost):
    state = {key: value for key, value in random_vit().state_dict().items() if not key.startswith(lost)}
    torch.save(state, tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=rf'does not fit the model: \d+ missing: {lost}'):
        load_vit(VisionTransformer(ARCH), tmp_path / 'a.pth')
