"""Which rate and decay each parameter gets, in classifiers, incubations, detectors and segmentors."""
import logging
import re

import pytest
import timm
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseTTAModel
from mmengine.optim import build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, DefaultScope
from timm.optim import param_groups_layer_decay
from torch import nn

from mmincubation.downstream import ViTBackbone
from mmincubation.engine.optim import ViTOptimWrapperConstructor, group_table
from mmincubation.errors import ConfigError
from mmincubation.incubation import IncubationModel
from mmincubation.models import ViTClassifier
from tests.downstream.test_backbone_in_mm import mask_rcnn, upernet
from tests.helpers.paths import ROOT
from tests.helpers.toy import begin_phase

ARCH = dict(embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=8, num_classes=3)
LR, DECAY = 1e-3, 0.1
# The rates of BEiT for 12 blocks at 0.95, factor for factor: 0.95 ** 13 the stem, 0.95 ** (12 - i) block i, 1 the rest.
BEIT_12 = [0.51334208, 0.54036009, 0.56880009, 0.59873694, 0.63024941, 0.66342043, 0.69833730, 0.73509189, 0.77378094,
           0.81450625, 0.857375, 0.9025, 0.95, 1.0]


def wrap(model, paramwise=None, scope='mmengine', **changes):
    """As the Runner does, under the config's default scope."""
    with DefaultScope.overwrite_default_scope(scope):
        return build_optim_wrapper(model, ConfigDict(
            type='OptimWrapper', constructor='mmincubation.ViTOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY) | changes, paramwise_cfg=paramwise))


def scales(model, *args, **kwargs) -> dict[str, tuple[float, float]]:
    """Name -> (rate, decay), relative to the configured ones; each parameter must be in one group."""
    names = {id(p): n for n, p in model.named_parameters()}
    found = [(names[id(p)], (group['lr'] / LR, group['weight_decay'] / DECAY))
             for group in wrap(model, *args, **kwargs).optimizer.param_groups for p in group['params']]
    assert len(found) == len(dict(found))
    return dict(found)


def rates(model, *args, **kwargs) -> dict[str, float]:
    """Name -> rate, relative to the configured one."""
    return {name: rate for name, (rate, _) in scales(model, *args, **kwargs).items()}


@pytest.fixture(scope='module')
def vit_base():
    with torch.device('meta'):
        return ViTClassifier('vit_base')


# --- layer decay

def test_twelve_blocks_have_the_rates_of_beit(vit_base):
    found = rates(vit_base, dict(layer_decay=0.95))
    expected = {}
    for name in found:
        part = name.split('.')[1]
        layer = int(name.split('.')[2]) + 1 if part == 'blocks' else 13 if part in ('norm', 'head') else 0
        expected[name] = BEIT_12[layer]
    assert found == pytest.approx(expected, rel=1e-7)
    assert found['vit.patch_embed.proj.weight'] == found['vit.pos_embed'] == found['vit.cls_token']


def test_rates_and_decays_equal_timms(vit_base):
    """timm gives the last block's rate to the final norm; BEiT's code, and ours, give it the head's."""
    with torch.device('meta'):
        theirs = timm.create_model('vit_base_patch16_224')
    names = {id(p): n for n, p in theirs.named_parameters()}
    groups = param_groups_layer_decay(theirs, DECAY, theirs.no_weight_decay(), layer_decay=0.95)
    expected = {f'vit.{names[id(p)]}': (g['lr_scale'], g['weight_decay'] / DECAY) for g in groups for p in g['params']}
    found = scales(vit_base, dict(layer_decay=0.95))
    assert found.keys() == expected.keys() and len(found) == 152
    differ = {name: (theirs, found[name]) for name, theirs in expected.items() if found[name] != pytest.approx(theirs)}
    assert differ == {f'vit.norm.{kind}': ((0.95, 0.0), (1.0, 0.0)) for kind in ('weight', 'bias')}


@pytest.mark.parametrize('build, scope', [(mask_rcnn, 'mmdet'), (upernet, 'mmseg')])
def test_detectors_and_segmentors(build, scope):
    model = build()
    found = scales(model, dict(layer_decay=0.5), scope)
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, (rate, _) in found.items():
        part, _, rest = name.removeprefix('backbone.').partition('.')
        after = 4 - int(rest.split('.')[0]) if part == 'blocks' else 5 if part in ('patch_embed', 'pos_embed',
                                                                                 'cls_token') else 0
        assert rate == pytest.approx(0.5**after), name
    assert len(wrap(model, dict(layer_decay=0.5), scope).optimizer.param_groups) == 12


def test_the_norms_of_all_taps_have_the_full_rate():
    found = rates(upernet(), dict(layer_decay=0.5), 'mmseg')
    assert {name: rate for name, rate in found.items() if 'tap_norms' in name} == {
        f'backbone.tap_norms.{i}.{kind}': 1.0 for i in range(4) for kind in ('weight', 'bias')}


def test_test_time_augmentation_keeps_the_layers():
    class TTA(BaseTTAModel):
        def merge_preds(self, data_samples_list):
            return data_samples_list

    inner = ViTClassifier(ARCH)
    expected = {f'module.{name}': pair for name, pair in scales(inner, dict(layer_decay=0.5)).items()}
    assert scales(TTA(inner), dict(layer_decay=0.5)) == expected


def test_distributed_wrapper_keeps_the_layers(tmp_path):
    inner = ViTClassifier(ARCH)
    expected = {f'module.{name}': pair for name, pair in scales(inner, dict(layer_decay=0.5)).items()}
    torch.distributed.init_process_group('gloo', init_method=f'file://{tmp_path}/store', rank=0, world_size=1)
    try:
        assert scales(nn.parallel.DistributedDataParallel(inner), dict(layer_decay=0.5)) == expected
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize('phase, expected', [
    ('meta', {'meta.pos_embed': .125, 'meta.blocks.0.mlp.fc1.bias': .25, 'meta.blocks.1.mlp.fc1.bias': .5,
              'meta.head.weight': 1}),
    ('module_0', {'target.pos_embed': .03125, 'target.blocks.0.mlp.fc1.bias': .0625,
                  'target.blocks.1.mlp.fc1.bias': .125}),
    ('module_1', {'target.blocks.2.mlp.fc1.bias': .25, 'target.blocks.3.mlp.fc1.bias': .5, 'target.head.weight': 1}),
    ('finetune', {'target.pos_embed': .03125, 'target.blocks.3.mlp.fc1.bias': .5, 'target.head.weight': 1}),
])
def test_a_phase_has_the_layers_of_the_vit_it_trains(phase, expected):
    model = IncubationModel(ARCH, modules=2)
    begin_phase(model, phase)
    found = rates(model, dict(layer_decay=0.5))
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name: found[name] for name in expected} == expected


def test_layer_decay_needs_layers():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match='layer_decay=0.9: leave it out, no part of this Sequential numbers its laye'):
        wrap(model, dict(layer_decay=0.9))
    assert scales(model, dict(layer_decay=1)) == {'0.weight': (1, 1), '0.bias': (1, 0)}


def test_a_wrapper_that_passes_attributes_on_keeps_the_layers():
    """As torch.compile's does: it seems to have the method itself."""
    inner, wrapper = ViTBackbone(ARCH, (3, )), nn.Module()
    wrapper.inner, wrapper.layer_of, wrapper.num_layers = inner, inner.layer_of, inner.num_layers
    expected = {f'inner.{name}': rate for name, rate in rates(inner, dict(layer_decay=0.5)).items()}
    assert rates(wrapper, dict(layer_decay=0.5)) == expected


# --- decay, groups

def test_two_groups_hold_every_trained_parameter_once():
    model = ViTClassifier(ARCH)
    found = scales(model)
    assert [g['weight_decay'] for g in wrap(model).optimizer.param_groups] == [DECAY, 0.]
    decayed = {name for name, pair in found.items() if pair == (1, 1)}
    assert decayed == {name for name in found if name.endswith('weight') and 'norm' not in name}
    assert {found[name] for name in found.keys() - decayed} == {(1, 0)}
    assert {'vit.pos_embed', 'vit.cls_token', 'vit.norm.weight', 'vit.head.bias'} <= found.keys() - decayed


@pytest.mark.parametrize('build, scope', [(mask_rcnn, 'mmdet'), (upernet, 'mmseg')])
def test_no_norm_and_no_bias_of_any_head_is_decayed(build, scope):
    model = build()
    found = scales(model, None, scope)
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm | nn.BatchNorm2d)]
    flat = {f'{name}.{kind}' for name in norms for kind in ('weight', 'bias')}
    flat |= {name for name in found if name.endswith('bias')}
    assert len(norms) > 8
    undecayed = {name for name, (_, decay) in found.items() if decay == 0}
    assert undecayed - flat == {'backbone.pos_embed', 'backbone.cls_token'} & found.keys()
    assert flat <= undecayed


def test_frozen_parameters_get_no_state_and_no_decay_can_be_changed():
    model = ViTClassifier(ARCH)
    model.vit.blocks.requires_grad_(False)
    found = scales(model, dict(no_decay=('patch_embed', )))
    assert not [name for name in found if 'blocks' in name]
    assert found['vit.pos_embed'] == (1, 1) and found['vit.patch_embed.proj.weight'] == (1, 0)


def test_the_optimisers_own_defaults_are_scaled_too():
    groups = build_optim_wrapper(ViTClassifier(ARCH), dict(
        constructor='mmincubation.ViTOptimWrapperConstructor', optimizer=dict(type='AdamW'),
        paramwise_cfg=dict(layer_decay=0.5))).optimizer.param_groups
    assert [(g['lr'], g['weight_decay']) for g in groups[:2]] == [(1e-3 / 32, 1e-2), (1e-3 / 32, 0.)]


# --- custom keys

def test_custom_keys_multiply_what_the_other_rules_say():
    found = scales(ViTClassifier(ARCH), dict(layer_decay=0.5, custom_keys={
        'blocks.3': dict(lr_mult=10), 'blocks.3.mlp': dict(decay_mult=3), 'head': dict(lr_mult=0., decay_mult=2.)}))
    assert found['vit.blocks.3.attn.qkv.weight'] == (5, 1) and found['vit.blocks.3.attn.qkv.bias'] == (5, 0)
    assert found['vit.blocks.3.mlp.fc1.weight'] == pytest.approx((.5, 3))  # the longest key alone
    assert found['vit.blocks.2.mlp.fc1.weight'] == (.25, 1)
    assert found['vit.head.weight'] == (0, 2) and found['vit.head.bias'] == (0, 0)


def test_of_equally_long_keys_the_alphabetically_first_counts_as_in_mmengine():
    keys = {'head': dict(lr_mult=2.), 'ead.': dict(lr_mult=3.)}
    model = ViTClassifier(ARCH)
    stock = OPTIM_WRAPPER_CONSTRUCTORS.build(dict(
        type='DefaultOptimWrapperConstructor', paramwise_cfg=dict(custom_keys=keys),
        optim_wrapper_cfg=dict(optimizer=dict(type='AdamW', lr=LR, weight_decay=DECAY))))(model)
    names = {id(p): n for n, p in model.named_parameters()}
    expected = {names[id(g['params'][0])]: g['lr'] / LR for g in stock.optimizer.param_groups}
    assert rates(model, dict(custom_keys=keys)) == expected and expected['vit.head.weight'] == 3


def test_a_custom_key_of_a_frozen_part_is_no_mistake():
    model = IncubationModel(ARCH, modules=2)
    begin_phase(model, 'module_0')
    assert set(rates(model, dict(custom_keys={'target.head': dict(lr_mult=2)})).values()) == {1}


@pytest.mark.parametrize('paramwise, message', [
    (dict(layer_decy=0.9), r"paramwise_cfg.layer_decy: ViTOptimWrapperConstructor has no such key \(nearest: 'layer_d"),
    (dict(norm_decay_mult=0.), r'paramwise_cfg.norm_decay_mult: ViTOptimWrapperConstructor has no such key'),
    (dict(layer_decay=0), 'layer_decay=0: give a number above 0'),
    (dict(layer_decay=1.1), 'layer_decay=1.1: give a number above 0'),
    (dict(layer_decay='0.9'), "layer_decay='0.9': give a number above 0"),
    (dict(layer_decay=True), 'layer_decay=True: give a number above 0'),
    (dict(no_decay='pos_embed'), "no_decay='pos_embed': give a list"),
    (dict(no_decay=['']), r"no_decay=\[''\]: give a list"),
    (dict(custom_keys=['head']), r"custom_keys=\['head'\]: give {part of a name"),
    (dict(custom_keys=dict(head=2.)), "custom_keys={'head': 2.0}: give {part of a name"),
    (dict(custom_keys=dict(head=dict(lr_mul=2.))), r"custom_keys\['head'\].lr_mul: .* \(nearest: 'lr_mult'\)"),
    (dict(custom_keys=dict(head=dict(lr_mult=-1))), r"custom_keys\['head'\].lr_mult=-1: give a number, 0 or more"),
    (dict(custom_keys=dict(heads=dict(lr_mult=1))), r"custom_keys: \['heads'\] match no parameter of this ViTClassif"),
    ([0.9], r'paramwise_cfg=\[0.9\]: give a dict'),
])
def test_wrong_settings_are_named(paramwise, message):
    with pytest.raises(ConfigError, match=message):
        wrap(ViTClassifier(ARCH), paramwise)


# --- where it is built, and what it says

@pytest.mark.parametrize('scope', ['mmengine', 'mmdet', 'mmseg'])
def test_resolves_under_every_default_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        cls = OPTIM_WRAPPER_CONSTRUCTORS.get('mmincubation.ViTOptimWrapperConstructor')
    assert cls is ViTOptimWrapperConstructor
    assert rates(ViTClassifier(ARCH), dict(layer_decay=0.5), scope)['vit.pos_embed'] == 0.5**5


def test_the_table_of_groups_is_logged_once(monkeypatch):
    said = []
    monkeypatch.setattr(MMLogger.get_current_instance(), 'log', lambda level, message: said.append((level, message)))
    optimizer = wrap(ViTClassifier(ARCH | dict(depth=1)), dict(layer_decay=0.5)).optimizer
    table = group_table(optimizer)
    assert [message for level, message in said if level >= logging.INFO] == [table]
    assert table.splitlines() == [
        'AdamW: 6 groups, 20 tensors, 4,243 parameters',
        'layer    lr scale       lr  weight decay  tensors  parameters',
        'stem         0.25  0.00025           0.1        1         768',
        'stem         0.25  0.00025             0        3         112',
        'block 0       0.5   0.0005           0.1        4       3,072',
        'block 0       0.5   0.0005             0        8         208',
        'rest            1    0.001           0.1        1          48',
        'rest            1    0.001             0        3          35',
    ]


def test_the_table_in_the_docs_is_what_its_code_gives():
    text = (ROOT / 'docs/guides/optimiser.md').read_text()
    code = next(block for block in re.findall(r'```python\n(.*?)```', text, re.DOTALL) if 'import mmdet' in block)
    scope = {}
    exec(code, scope)
    assert f'```text\n{group_table(scope["wrapper"].optimizer)}\n```' in text


def test_a_group_over_several_layers_says_which():
    model = IncubationModel(ARCH, modules=2)
    begin_phase(model, 'module_1')
    assert [g['layer'] for g in wrap(model).optimizer.param_groups] == ['block 2 .. rest'] * 2


def test_fused_steps_equal_plain_ones():
    trained = []
    for fused in (False, True):
        torch.manual_seed(0)
        model = ViTClassifier(ARCH)
        wrapper = wrap(model, dict(layer_decay=0.5), fused=fused)
        for _ in range(3):
            data = dict(inputs=torch.randint(0, 255, (4, 3, 8, 8)).to(torch.uint8), labels=torch.arange(4) % 3)
            model.train_step(data, wrapper)
        trained.append(model.state_dict())
    for name, tensor in trained[0].items():
        torch.testing.assert_close(tensor, trained[1][name], atol=1e-5, rtol=1e-4)
