"""Heads and epsilon, which no shape shows: those that a program's code has, and those that were given."""
import re

import pytest
import torch

from mmincubation.checkpoints import CheckpointError, inspect_weights, settle_arch
from mmincubation.downstream import ViTBackbone
from mmincubation.models import Arch
from tests.helpers.weight_files import headless, random_vit

SMALL_WIDTH = Arch(embed_dim=384, depth=1, num_heads=12, img_size=32, mlp_ratio=.5)


def moco(state: dict) -> dict:
    """MoCo v3's checkpoint: two networks, with projectors in the place of heads."""
    out = {f'module.{name}_encoder.{key}': value + (name == 'base') for name in ('base', 'momentum')
           for key, value in headless(state).items()}
    heads = {f'module.{name}_encoder.head.{i}.weight': torch.zeros(3, 384) for name in ('base', 'momentum')
             for i in (0, 3)}
    return dict(epoch=300, arch='vit_small', state_dict=out | heads)


def test_the_heads_of_moco_v3(tmp_path):
    torch.save(moco(random_vit(SMALL_WIDTH).state_dict()), tmp_path / 'a.pth')
    assert inspect_weights(tmp_path / 'a.pth', 'base_encoder').arch['num_heads'] == 12
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth'), prefix='momentum_encoder')
    backbone = ViTBackbone(SMALL_WIDTH, (0, ), init_cfg=init_cfg)
    backbone.init_weights()
    assert "num_heads=12, as in MoCo v3's ViT-S; assumed" in backbone.load_report['coverage']
    with pytest.raises(CheckpointError, match="MoCo v3's code says num_heads=12, the model has num_heads=6; set"):
        ViTBackbone(dict(SMALL_WIDTH.to_dict(), num_heads=6), (0, ), init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize('field, value, said', [
    ('num_heads', 12, 'num_heads=12 .as given; vit_small has 6.'),
    ('norm_eps', 1e-5, 'norm_eps=1e-05 .as given; vit_small has 1e-06.')])
def test_what_only_the_width_tells_is_believed_if_given(tmp_path, field, value, said):
    arch = Arch(**SMALL_WIDTH.to_dict() | dict(num_heads=6) | {field: value})
    torch.save(random_vit(arch).state_dict(), tmp_path / 'a.pth')
    backbone = ViTBackbone(arch, (0, ), init_cfg=dict(type='Pretrained', checkpoint=str(tmp_path / 'a.pth')))
    backbone.init_weights()
    assert re.search(f'assumed, the file does not say it: .*{said}', backbone.load_report['coverage'])
    auto = settle_arch(dict(arch={'name': 'auto', field: value}), tmp_path / 'a.pth', 'model')
    assert auto['arch'][field] == value
