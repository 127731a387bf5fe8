"""`arch='auto'`: every way a file says its architecture, and one line where it does not."""
import json

import pytest
import torch
from mmengine.config import Config

from mmincubation.checkpoints import CheckpointError, infer_arch, settle_arch, vit_shapes, write_tensors
from mmincubation.config.auto_arch import settle_archs
from mmincubation.downstream import ViTBackbone
from mmincubation.models import Arch, VisionTransformer, ViTClassifier
from tests.helpers.weight_files import ARCH, headless, random_vit

SMALL = Arch(embed_dim=192, depth=2, num_heads=3, patch_size=8, img_size=16, num_classes=4)


def settled(path, arch='auto', place='model', backbone=False, **more) -> dict:
    return settle_arch(dict(arch=arch, **more), path, place, backbone=backbone)


@pytest.fixture
def bare(tmp_path):
    """A file of timm's names with a width that no public ViT has."""
    torch.save(random_vit().state_dict(), tmp_path / 'bare.pth')
    return tmp_path / 'bare.pth'


def test_a_header_says_all(tmp_path):
    write_tensors(tmp_path / 'a.safetensors', random_vit().state_dict(), dict(kind='vit', arch=ARCH.to_dict()))
    assert settled(tmp_path / 'a.safetensors')['arch'] == ARCH.to_dict()


def test_public_widths_say_heads(tmp_path):
    torch.save(random_vit(SMALL).state_dict(), tmp_path / 'small.pth')
    assert Arch.parse(settled(tmp_path / 'small.pth')['arch']) == SMALL
    found = settled(tmp_path / 'small.pth', dict(name='auto', num_classes=2, img_size=32))['arch']
    assert (found['num_classes'], found['img_size'], found['num_heads']) == (2, 32, 3)


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_false_and_zero_of_a_file_are_no_gaps(tmp_path, suffix):
    """A ViT without biases of queries, keys and values, in a file that says its heads or a width that does."""
    arch = Arch(embed_dim=1280, depth=1, num_heads=16, patch_size=14, img_size=28, num_classes=2, mlp_ratio=.1,
                qkv_bias=False, norm_eps=1e-5)
    path = tmp_path / f'a.{suffix}'
    if suffix == 'pth':
        torch.save(VisionTransformer(arch).state_dict(), path)
    else:
        write_tensors(path, VisionTransformer(arch).state_dict(), dict(kind='vit', arch=arch.to_dict()))
    assert Arch.parse(settled(path)['arch']) == arch
    ViTBackbone('auto', (0, ), init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()


@pytest.mark.parametrize('backbone', [True, False])
def test_another_patch_keeps_the_grid_of_positions(tmp_path, backbone):
    torch.save(random_vit(SMALL).state_dict(), tmp_path / 'small.pth')
    for changes, image in ((dict(patch_size=16), 32), (dict(patch_size=3), 6), (dict(patch_size=16, img_size=16), 16),
                           (dict(img_size=24), 24)):
        found = settled(tmp_path / 'small.pth', dict(name='auto', **changes), backbone=backbone)['arch']
        assert found['img_size'] == image
    with pytest.raises(CheckpointError, match="patch_size='16': give a whole number"):
        settled(tmp_path / 'small.pth', dict(name='auto', patch_size='16'), backbone=backbone)


def test_the_width_of_an_mlp_survives_timms_rounding():
    tensors = random_vit().state_dict()
    for dim in range(16, 1700, 16):
        tensors['patch_embed.proj.weight'] = torch.empty(dim, 3, 4, 4, device='meta')
        for hidden in range(dim, 6 * dim, 16):
            tensors['blocks.0.mlp.fc1.weight'] = torch.empty(hidden, dim, device='meta')
            assert int(dim * infer_arch(tensors)[0]['mlp_ratio']) == hidden
    shapes = vit_shapes(ARCH.to_dict() | dict(embed_dim=176, mlp_ratio=784.5 / 176))
    found, _ = infer_arch({name: torch.empty(shape, device='meta') for name, shape in shapes.items()})
    assert vit_shapes(found) == shapes


def test_config_beside_says_heads(bare):
    bare.with_name('config.json').write_text(json.dumps(dict(architecture='vit_tiny_patch16_224', model_args=dict(
        embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=16))))
    assert settled(bare)['arch']['num_heads'] == 2


def test_a_runs_checkpoint_says_heads_and_the_class_token(tmp_path):
    state = {f'backbone.{key}': value for key, value in headless(random_vit().state_dict()).items()}
    torch.save(dict(meta=dict(arch=ARCH.to_dict()), state_dict=state), tmp_path / 'iter_1.pth')
    found = settled(tmp_path / 'iter_1.pth', backbone=True)
    assert found['cls_token'] and found['arch']['num_heads'] == 2 and 'num_classes' not in found['arch']
    del state['backbone.cls_token']
    torch.save(dict(meta=dict(arch=ARCH.to_dict()), state_dict=state), tmp_path / 'iter_2.pth')
    assert not settled(tmp_path / 'iter_2.pth', backbone=True)['cls_token']


def test_the_class_token_follows_the_file_unless_windows_or_the_user_say_else(bare):
    heads = dict(name='auto', num_heads=2, norm_eps=1e-6)
    assert settled(bare, heads, backbone=True)['cls_token'] is True
    assert settled(bare, heads, backbone=True, window_size=2)['cls_token'] is False
    assert settled(bare, heads, backbone=True, cls_token=False)['cls_token'] is False
    state = {key: value for key, value in random_vit().state_dict().items() if key != 'cls_token'}
    state['pos_embed'] = state['pos_embed'][:, 1:]
    torch.save(state, bare)
    assert settled(bare, heads, backbone=True)['cls_token'] is False


def test_what_cannot_be_known_is_asked_for_in_one_line(bare, tmp_path):
    with pytest.raises(CheckpointError, match=r"model.arch='auto': .*bare.pth does not say num_heads and norm_eps; "
                                              r"write arch=dict\(name='auto', num_heads=1, norm_eps=1e-06\)"):
        settled(bare)
    torch.save(headless(random_vit(SMALL).state_dict()), tmp_path / 'mae.pth')
    with pytest.raises(CheckpointError, match=r"mae.pth has no head; write arch=dict\(name='auto', num_classes=10\), "
                                              'with that of your classes'):
        settled(tmp_path / 'mae.pth')
    assert settled(tmp_path / 'mae.pth', backbone=True)['arch']['depth'] == 2
    with pytest.raises(CheckpointError, match="model.arch='auto': there is no file to take it from; give init_cfg"):
        settled(None)
    with pytest.raises(CheckpointError, match="model.arch='auto' is that of a file: .*gone.pth"):
        settled(tmp_path / 'gone.pth')
    with pytest.raises(CheckpointError, match="model.arch='auto': .*img_size=17 is not a multiple of patch_size=8"):
        settled(tmp_path / 'mae.pth', dict(name='auto', img_size=17, num_classes=2))


def test_models_built_by_hand(tmp_path):
    torch.save(random_vit(SMALL).state_dict(), tmp_path / 'small.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'small.pth'))
    backbone = ViTBackbone('auto', (1, ), init_cfg=init)
    backbone.init_weights()
    assert backbone.prefix == 1 and '100.0 %' in backbone.load_report['coverage']
    classifier = ViTClassifier(dict(name='auto', num_classes=2), init_cfg=dict(init, fresh=('head', )))
    classifier.init_weights()
    assert classifier.vit.head.weight.shape == (2, 192) and classifier.vit.arch.num_heads == 3
    with pytest.raises(CheckpointError, match="ViTClassifier.arch='auto': there is no file"):
        ViTClassifier('auto')


def test_a_config_gets_the_fields_of_its_file(tmp_path):
    torch.save(random_vit(SMALL).state_dict(), tmp_path / 'small.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'small.pth'))
    cfg = Config(dict(model=dict(type='EncoderDecoder', backbone=dict(
        type='mmincubation.ViTBackbone', arch='auto', out_indices=(1, ), init_cfg=init))))
    [line] = settle_archs(cfg)
    assert line == (f"model.backbone.arch='auto': embed_dim=192, depth=2, num_heads=3, patch_size=8, img_size=16, "
                    f'cls_token=True, from {tmp_path}/small.pth')
    assert cfg.model.backbone.arch.depth == 2 and 'auto' not in cfg.pretty_text and settle_archs(cfg) == []
