"""Features of a file: timm's, of images as ImageNet's validation shows them; and which files are refused."""
import numpy as np
import pytest
import timm
import torch
from PIL import Image

from mmincubation.checkpoints import CheckpointError, write_tensors
from mmincubation.config.load import load_config
from mmincubation.datasets.classification import ImageFolder
from mmincubation.errors import ConfigError
from mmincubation.models import Arch, ClsDataPreprocessor, VisionTransformer
from mmincubation.probes.features import extract, feature_vit, image_set
from mmincubation.vit.transformer import run_blocks
from tests.helpers.paths import ROOT
from tests.helpers.shrink import write_arrow
from tests.helpers.weight_files import FILES, arch_for, random_vit, write_file

TINY = dict(embed_dim=24, depth=2, num_heads=3, patch_size=4, img_size=16, num_classes=3)


def save(path, change=dict, header=True, **arch) -> str:
    """A random ViT's file; `change` makes other tensors of its own."""
    torch.manual_seed(0)
    vit = VisionTransformer(TINY | arch)
    for parameter in vit.parameters():
        torch.nn.init.normal_(parameter, std=.3)
    write_tensors(path, change(vit.state_dict()), dict(kind='vit', arch=vit.arch.to_dict()) if header else {})
    return str(path)


def without(*words):
    return lambda tensors: {key: value for key, value in tensors.items() if not key.startswith(words)}


@pytest.mark.parametrize('pool', ['token', 'avg'])
def test_features_are_timms(tmp_path, pool):
    path = save(tmp_path / 'vit.safetensors', global_pool=pool)
    theirs = timm.models.VisionTransformer(
        img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=3, num_classes=3, global_pool=pool, fc_norm=False)
    theirs.load_state_dict(VisionTransformer(TINY).state_dict() | feature_state(path), strict=True)
    images = torch.randn(2, 3, 16, 16)
    vit = feature_vit(path, {})
    assert vit.pool == pool  # as the head of the file reads
    expected = theirs.eval().forward_head(theirs.forward_features(images), pre_logits=True)
    torch.testing.assert_close(vit(images), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', FILES)
def test_every_format_gives_the_same_features(tmp_path, name):
    path, _ = write_file(tmp_path, name)
    stated = {} if name == 'ours.safetensors' else dict(num_heads=2, norm_eps=1e-6)
    vit, same, images = feature_vit(str(path), stated), random_vit(arch_for(name)), torch.randn(2, 3, 16, 16)
    expected = same.norm(run_blocks(same.blocks, same.stem(images)))[:, 0]
    torch.testing.assert_close(vit(images), expected, atol=1e-5, rtol=1e-5)


def feature_state(path: str) -> dict:
    from safetensors.torch import load_file
    return load_file(path)


def test_without_a_class_token_the_feature_is_the_mean(tmp_path):
    def change(tensors):
        return without('cls_token')(tensors) | dict(pos_embed=tensors['pos_embed'][:, 1:])

    path = save(tmp_path / 'vit.safetensors', change)
    assert feature_vit(path, {}).pool == 'avg'
    with pytest.raises(CheckpointError, match='--pool avg'):
        feature_vit(path, {}, 'token')


def test_images_are_those_of_imagenets_validation(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / 'a').mkdir()
    Image.fromarray(rng.integers(0, 256, (300, 400, 3)).astype(np.uint8)).save(tmp_path / 'a/0.png')
    pipeline = load_config(ROOT / 'configs/imagenet/vit_b_e2e.py').val_dataloader.dataset.pipeline
    ours, theirs = image_set(str(tmp_path), 224, .875)[0], ImageFolder(str(tmp_path), pipeline)[0]
    assert ours['inputs'].equal(theirs['inputs']) and ours['inputs'].shape == (3, 224, 224)


def test_arrow_folders_and_a_fraction(tmp_path):
    write_arrow(tmp_path, 40)
    found = image_set(str(tmp_path), 16, 1., ('img', 'fine_label'), .5)
    assert len(found) == 20 and len(found.classes) == 100
    vit = feature_vit(save(tmp_path / 'vit.safetensors'), {})
    features, labels = extract(vit, found, ClsDataPreprocessor(), 0, 'train')
    assert features.shape == (20, 24) and labels.tolist() == found.labels[found.kept].tolist()
    one = ClsDataPreprocessor()({key: torch.as_tensor(value)[None] for key, value in found[3].items()})['inputs']
    torch.testing.assert_close(features[3:4], vit(one).detach(), atol=1e-5, rtol=1e-5)
    with pytest.raises(ConfigError, match='not finite.*--std'):
        extract(vit, found, ClsDataPreprocessor(std=(0, 0, 0)), 0, 'train')


def test_what_a_file_does_not_say_is_asked_for(tmp_path):
    path = save(tmp_path / 'vit.safetensors', header=False)
    with pytest.raises(CheckpointError, match='give --arch num_heads=12 norm_eps=1e-06'):
        feature_vit(path, {})
    vit = feature_vit(path, dict(num_heads=3, norm_eps=1e-6))
    assert vit.arch == Arch(**TINY | dict(num_classes=3))


def test_another_size_is_resized_and_said(tmp_path):
    vit = feature_vit(save(tmp_path / 'vit.safetensors'), dict(img_size=32))
    assert vit.pos_embed.shape[1] == 65 and 'resized from 4x4 to 8x8' in vit.load_report['coverage']


@pytest.mark.parametrize('change, said', [
    (without('norm.'), 'as in a detector'),
    (lambda t: without('norm.')(t) | {f'fc_{k}': t[k] for k in ('norm.weight', 'norm.bias')}, 'fc_norm')])
def test_a_file_without_the_norm_of_the_tokens_is_refused(tmp_path, change, said):
    with pytest.raises(CheckpointError, match=said):
        feature_vit(save(tmp_path / 'vit.safetensors', change), {})
