"""The unit model of docs/measurements/performance.md against FLOPs counted in steps, ours and the public code's."""
import copy

import pytest
import torch

from mmincubation.benchmark import units
from mmincubation.benchmark.batches import synthetic
from mmincubation.benchmark.flops import count_flops
from mmincubation.benchmark.plan import e2e_units
from mmincubation.benchmark.steps import Phases, build
from mmincubation.benchmark.units import BlockFlops, Units, end_to_end, joint, module, of_phase, recipe, total
from mmincubation.models import ARCHS, Arch, Division, VisionTransformer
from mmincubation.vit.transformer import attention_as_on_gpus
from tests.helpers.toy import incubation_config

ARCH = dict(embed_dim=48, depth=8, num_heads=2, patch_size=4, img_size=16, num_classes=5)
DEPTHS = [1, 3, 2, 2]
PHASES = ['meta', *(f'module_{i}' for i in range(4)), 'modules', 'finetune']
CPU = torch.device('cpu')


@pytest.fixture(scope='module')
def cfg():
    cfg = incubation_config('none', 'none', drop_path_rate=0.1, modules=DEPTHS)
    cfg.model.arch = ARCH
    cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.fused = 'mmincubation.AutocastOptimWrapper', True
    return cfg


@pytest.mark.parametrize('depths, meta_depth', [(DEPTHS, 1), ([2, 2, 2, 2], 2)])
@pytest.mark.parametrize('phase, variant', [
    *((phase, 'ours') for phase in PHASES), *((phase, 'reference') for phase in PHASES if phase != 'modules')])
def test_flops_of_a_real_step_are_those_of_the_units(cfg, phase, variant, depths, meta_depth):
    cfg = copy.deepcopy(cfg)
    cfg.model.update(modules=depths, meta_depth=meta_depth)
    phases = Phases(cfg)
    model, division, public = build(cfg, CPU), Division(depths, meta_depth), variant == 'reference'
    step = getattr(phases, variant)(model, phase, synthetic(cfg, (16, 16), 3))
    flops = BlockFlops.of(Arch.parse(ARCH)).step(of_phase(division, phase, public), fused=not public)
    with attention_as_on_gpus():
        assert count_flops(step) == 3 * flops


@pytest.mark.parametrize('name', ['vit_base', 'vit_large', 'vit_huge'])
def test_parameters_are_the_models(name):
    with torch.device('meta'):
        vit = VisionTransformer(name)
    arch, division = ARCHS[name], Division.of(ARCHS[name].depth, 4)
    size = sum(p.numel() for p in vit.parameters())
    assert units.parameters(arch, arch.depth) == size == units.trained_parameters(arch, division, 'finetune')
    own = [sum(p.numel() for p in division.entries_of(dict(vit.named_parameters()), i).values()) for i in range(4)]
    assert own == [units.trained_parameters(arch, division, f'module_{i}') for i in range(4)] and sum(own) == size
    assert units.trained_parameters(arch, division, 'meta') == units.parameters(arch, 4)


def test_units_of_the_phases():
    division = Division.of(12, 4)
    assert [(u.forward, u.inputs, u.weights) for u in (module(division, i) for i in range(4))] == \
        [(6, 6, 3), (6, 5, 3), (6, 4, 3), (6, 3, 3)]
    assert [module(division, i, public=True).weights for i in range(4)] == [6, 5, 4, 3]
    alone = total(module(division, i) for i in range(4))
    together = joint(division)
    assert (alone.forward - together.forward, alone.stems - together.stems) == (3, 2)
    assert (together.inputs, together.weights) == (alone.inputs, alone.weights)
    assert joint(Division.of(12, 1)) == end_to_end(12) == Units(12, 12, 12, 1, 1, 1, 1)


@pytest.mark.parametrize('depth, modules', [(12, 4), (24, 4), (32, 8), (128, 4)])
def test_recipes_by_formula(depth, modules):
    """3 D + 3/2 K (K - 1) for all modules; 3 D + 2 K (K - 1) in the public code."""
    pairs = modules * (modules - 1)
    assert recipe(depth, modules, 300, 100, 100) == dict(
        meta=900 * modules, modules=100 * (3 * depth + 3 * pairs // 2), finetune=300 * depth)
    assert recipe(depth, modules, mode='public')['modules'] == 100 * (3 * depth + 2 * pairs)
    assert e2e_units(depth) == 900 * depth
