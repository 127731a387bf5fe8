"""A frozen backbone: it keeps its weights and costs no training, while what it feeds trains as before."""
import pytest
import torch
from mmengine.registry import MODELS, DefaultScope

from bench.memory import detector, measured, real_batch, segmentor
from mmincubation.check import memory
from mmincubation.check.report import Report
from mmincubation.check.weights import report_weights
from mmincubation.config.load import load_config
from mmincubation.config.settings import recipe_of
from mmincubation.downstream import TimmViT, ViTBackbone
from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.rows import merge_seeds
from tests.helpers.paths import ROOT
from tests.helpers.results import put

FROZEN = {'model.backbone.frozen': True}
TINY = dict(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=24)
CONFIG = ROOT / 'configs/demo/upernet_vit_demo_e2e.py'


def built(make, **options):
    """A small detector or segmentor of equal weights and in training mode, and its config."""
    cfg = make(64, 4, 2, 64, **options)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return MODELS.build(cfg.model).train(), cfg


def loss_of(model, cfg) -> torch.Tensor:
    """The loss of one batch; the same draws for each model."""
    torch.manual_seed(1)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return memory.total_loss(model, real_batch(cfg.default_scope, (64, 64), 2))


@pytest.mark.parametrize('make', [segmentor, detector])
def test_neck_and_heads_have_the_gradients_that_an_unfrozen_backbone_gives(make):
    learns, frozen = built(make), built(make, **FROZEN)
    for model, cfg in (learns, frozen):
        loss_of(model, cfg).backward()
    theirs = {name: p.grad for name, p in learns[0].named_parameters()}
    for name, parameter in frozen[0].named_parameters():
        if name.startswith('backbone.') and 'tap_norms' not in name:
            assert parameter.grad is None and theirs[name] is not None, name
        else:  # DDP demands a gradient of each parameter that trains
            torch.testing.assert_close(parameter.grad, theirs[name], atol=1e-6, rtol=1e-6)


def test_steps_change_everything_else_alone():
    model, cfg = built(segmentor, **FROZEN)
    wrapper = memory.make_wrapper(cfg.optim_wrapper, model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for _ in range(2):
        wrapper.update_params(loss_of(model, cfg))
    trained = {id(p) for group in wrapper.optimizer.param_groups for p in group['params']}
    for name, parameter in model.named_parameters():
        stays = name.startswith('backbone.') and 'tap_norms' not in name
        assert parameter.equal(before[name]) is stays and (id(parameter) in trained) is not stays, name
    assert {id(p) for p in wrapper.optimizer.state} == trained
    assert any('tap_norms' in name for name in before)


def test_it_is_always_in_evaluation_mode():
    model = ViTBackbone(TINY, (3, ), drop_path_rate=.9, frozen=True)
    images = torch.randn(4, 3, 24, 24)
    assert not model.training and model.eval()(images)[0].equal(model.train()(images)[0])
    assert not any(module.training for module in model.modules()) and not model(images)[0].requires_grad


@pytest.mark.parametrize('make', [lambda **more: ViTBackbone(TINY, **more), lambda **more: TimmViT(
    'vit_tiny_patch16_224', img_size=32, model_args=dict(embed_dim=32, depth=4, num_heads=2, patch_size=8), **more)])
def test_its_last_tap_may_be_any_block_and_the_blocks_after_it_do_not_run(make):
    torch.manual_seed(0)
    whole, frozen = make(out_indices=(0, 1, 3)), make(out_indices=(0, 1), frozen=True, tap_norm=True)
    frozen.load_state_dict(whole.state_dict(), strict=False)
    frozen.tap_norms = torch.nn.ModuleList(torch.nn.Identity() for _ in range(2))
    blocks = frozen.vit.blocks if isinstance(frozen, TimmViT) else frozen.blocks
    blocks[2] = torch.nn.Linear(1, 1)
    images = torch.randn(2, 3, 24, 24)
    for map_, expected in zip(frozen(images), whole.eval()(images), strict=False):
        assert map_.equal(expected)


def test_every_parameter_that_trains_behind_an_early_tap_has_a_gradient():
    model = ViTBackbone(TINY, (0, 1), frozen=True, tap_norm=True).train()
    sum(map_.square().sum() for map_ in model(torch.randn(2, 3, 24, 24))).backward()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {
        name for name, p in model.named_parameters() if p.grad is not None} != set()


def test_an_early_tap_must_be_a_block_and_needs_a_frozen_backbone():
    with pytest.raises(ValueError, match='end at the last block, 3 or before$'):
        ViTBackbone(TINY, (4, ), frozen=True)
    with pytest.raises(ValueError, match='would be unused, which frozen=True alone allows'):
        ViTBackbone(TINY, (2, ))


def test_random_frozen_weights_are_said_to_be_a_control(monkeypatch):
    said = []
    monkeypatch.setattr('mmincubation.downstream.backbone.print_log', lambda text, **_: said.append(text))
    ViTBackbone(TINY, (3, )).init_weights()
    assert said == []
    ViTBackbone(TINY, (3, ), frozen=True).init_weights()
    assert len(said) == 1 and 'stay random, which only a control wants' in said[0]


def test_the_memory_estimate_follows():
    learns, frozen = (memory.estimate(segmentor(64, 4, 2, 128, **more))[0] for more in ({}, FROZEN))
    assert frozen.optimizer < learns.optimizer and frozen.kept < learns.kept and frozen.parameters == learns.parameters
    assert frozen.peak == pytest.approx(measured(segmentor(64, 4, 2, 128, **FROZEN)), rel=memory.ERROR / 100)


def test_sharding_divides_frozen_parameters_too():
    cfg = segmentor(64, 4, 2, 64, **FROZEN)
    copies = memory.estimate(cfg, 4)[0]
    cfg.model_wrapper_cfg = dict(type='mmincubation.FullyShard')
    spread = memory.estimate(cfg, 4)[0]
    every = sum(p.numel() * p.element_size() for p in built(segmentor)[0].parameters())
    assert copies.parameters - spread.parameters == pytest.approx(every * 3 / 4, rel=.01)
    assert copies.gradients < .8 * every


def test_it_is_a_row_of_its_own_whose_label_says_so(tmp_path):
    for options in ({}, FROZEN):
        put(tmp_path, 'incub', 40., 'segmentation', recipe=recipe_of(load_config(CONFIG, options), 1))
    runs, *_ = collect([tmp_path])
    assert {row.label for row in merge_seeds(runs)} == {'incub (frozen unset)', 'incub (frozen True)'}


def test_the_check_warns_of_random_frozen_weights():
    report = Report()
    report.section('Weights')
    report_weights(load_config(ROOT / 'configs/demo/upernet_vit_demo_scratch.py', FROZEN), report)
    assert len(report.warnings) == 1 and report.warnings[0].startswith('model.backbone.frozen: random weights')
