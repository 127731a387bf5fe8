"""Names of architectures: ours, mmpretrain's with hyphens, timm's with patch and image size."""
import pytest
import timm
import torch

from mmincubation.models import ARCHS, Arch


@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'vit_small_patch16_384', 'deit_small_patch16_224',
                                  'vit_base_patch32_384', 'vit_small_patch8_224', 'vit_huge_patch14_224'])
def test_timms_names_mean_timms_shapes(name):
    with torch.device('meta'):
        theirs = timm.create_model(name)
    block, arch = theirs.blocks[0], Arch.parse(name)
    assert (arch.embed_dim, arch.depth, arch.num_heads) == (theirs.embed_dim, len(theirs.blocks), block.attn.num_heads)
    assert (arch.patch_size, arch.img_size) == (theirs.patch_embed.patch_size[0], theirs.patch_embed.img_size[0])
    assert (arch.norm_eps, arch.qkv_bias) == (block.norm1.eps, block.attn.qkv.bias is not None)


def test_short_names_and_changes():
    assert Arch.parse('deit-tiny') == Arch.parse('vit_tiny') == ARCHS['vit_tiny']
    assert Arch.parse(dict(name='vit_small_patch16_224', num_classes=2)).num_classes == 2
    assert Arch.parse('vit_huge') != Arch.parse('vit_huge_patch14_224')  # Deep Incubation's has no qkv bias


@pytest.mark.parametrize('name', ['small', 'vit_smal', 'vit_small_patch16_224.augreg_in1k', 'vit_small_patch14_dinov2'])
def test_unknown_names_say_which_form_to_write(name):
    with pytest.raises(ValueError, match=f"unknown arch '{name}'.*vit_small, .*also as vit_small_patch16_224.*'auto'"):
        Arch.parse(name)


def test_auto_is_refused_where_no_file_is():
    with pytest.raises(ValueError, match="arch='auto' is that of a file, which this model does not begin from"):
        Arch.parse(dict(name='auto', num_classes=3))


def test_a_name_beside_all_sizes_of_a_base_config_is_refused():
    with pytest.raises(ValueError, match="embed_dim=64, depth=24, num_heads=2 leave nothing of name='vit_tiny'; .*"
                                         r"arch=dict\(_delete_=True, name='vit_tiny', ...\)"):
        Arch.parse(dict(embed_dim=64, depth=24, num_heads=2, name='vit_tiny'))  # as mmengine merges them


def test_all_sizes_given_after_a_name_are_taken():
    """As by --cfg-options, for a quick trial; the rest is the name's."""
    arch = Arch.parse(dict(name='vit_huge', embed_dim=64, depth=24, num_heads=2))
    assert (arch.embed_dim, arch.qkv_bias, arch.patch_size) == (64, False, 14)
