"""The linear head: BatchNorm and a 1 x 1 convolution, nothing else; and its config, which trains that alone."""
import pytest
import torch
import torch.nn.functional as F
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope

from mmincubation.check import memory
from mmincubation.config.load import load_config
from mmincubation.downstream import ViTBackbone
from tests.helpers.paths import ROOT
from tests.helpers.shrink import shrink


def head(**options):
    with DefaultScope.overwrite_default_scope('mmseg'):
        return revert_sync_batchnorm(MODELS.build(dict(
            type='mmincubation.LinearHead', num_classes=5, align_corners=False, **options)))


def test_it_is_batch_norm_and_a_convolution():
    torch.manual_seed(0)
    ours, maps = head(in_channels=8, norm_cfg=dict(type='BN')), torch.randn(3, 8, 4, 6) * 7 + 2
    normal = (maps - maps.mean((0, 2, 3), keepdim=True)) / (maps.var((0, 2, 3), False, keepdim=True) + 1e-5).sqrt()
    expected = F.conv2d(normal, ours.conv_seg.weight, ours.conv_seg.bias)
    torch.testing.assert_close(ours.train()((maps, )), expected, atol=1e-5, rtol=1e-5)
    assert sum(p.numel() for p in ours.parameters()) == 2 * 8 + 5 * 8 + 5
    assert ours.dropout is None


def test_before_it_a_new_norm_is_as_good_as_the_files():
    """The config says so: BatchNorm undoes scale and shift of each channel, up to its sign, which the weight takes."""
    torch.manual_seed(0)
    ours, maps, scale, shift = head(in_channels=8, norm_cfg=dict(type='BN')).train(), torch.randn(3, 8, 4, 6) * 7, \
        torch.rand(8) + .5, torch.randn(8)
    new, theirs = (F.layer_norm(maps.movedim(1, -1), (8, ), *more).movedim(-1, 1) for more in ((), (scale, shift)))
    torch.testing.assert_close(ours((new, )), ours((theirs, )), atol=1e-3, rtol=1e-3)


def test_it_reads_several_maps():
    ours = head(in_channels=[8, 8], in_index=[0, 1], input_transform='resize_concat', norm_cfg=dict(type='BN'))
    assert ours((torch.randn(2, 8, 4, 4), torch.randn(2, 8, 4, 4))).shape == (2, 5, 4, 4)


@pytest.fixture
def built(tmp_path):
    cfg = shrink(load_config(ROOT / 'configs/ade20k/linear_vit_b_incub.py'), tmp_path)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    return model.train(), memory.make_wrapper(cfg.optim_wrapper, model)


def test_a_step_of_the_config_changes_the_head_and_the_norm_before_it_alone(built):
    model, wrapper = built
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    batch = memory.make_batch('mmseg', (64, 64), 2)
    batch['inputs'].normal_()
    wrapper.update_params(memory.total_loss(model, batch))
    changed = {name for name, p in model.named_parameters() if not p.equal(before[name])}
    assert isinstance(model.backbone, ViTBackbone) and model.backbone.load_report
    assert isinstance(model.backbone.tap_norms[0], torch.nn.LayerNorm)  # as DINOv2's maps
    assert changed - {f'backbone.tap_norms.0.{name}' for name in ('weight', 'bias')} == {
        f'decode_head.{layer}.{name}' for layer in ('conv_seg', 'norm') for name in ('weight', 'bias')}
