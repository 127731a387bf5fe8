"""The demo's configs say what they are and differ in nothing else."""

import pytest
from mmengine.config import Config

from mmincubation.models import Division
from tests.helpers.paths import ROOT

LEAVES = sorted((ROOT / 'configs/demo').glob('*.py'))
BACKBONES = [p for p in LEAVES if p.stem.startswith(('maskrcnn_', 'upernet_'))]
CLASSIFIERS = [p for p in LEAVES if p.stem.startswith('vit_demo_')]


def load(path) -> Config:
    return Config.fromfile(path)


def test_incub_grows_and_incub_random_is_the_papers_start():
    assert load(ROOT / 'configs/demo/vit_demo_incub.py').train_cfg.start == 'grow'
    assert load(ROOT / 'configs/demo/vit_demo_incub_random.py').train_cfg.start == 'random'


def block_epochs(cfg: Config) -> int:
    """Block-forwards per training image, summed over the epochs of all phases."""
    depth = cfg.model.arch.depth
    if cfg.experiment.method == 'e2e':
        return depth * cfg.train_cfg.max_epochs
    division, phases = Division.of(depth, cfg.model.modules), cfg.train_cfg.phases
    hybrids = sum(d + len(division) - 1 for d in division.depths)
    return len(division) * phases.meta.epochs + hybrids * phases.module.epochs + depth * phases.finetune.epochs


def test_all_classifiers_cost_the_same():
    costs = {p.stem: block_epochs(load(p)) for p in CLASSIFIERS}
    assert len(costs) == 3 and len(set(costs.values())) == 1, costs


def test_classifiers_share_model_and_data():
    cfgs = [load(p) for p in CLASSIFIERS]
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator', 'randomness'):
        assert all(c[key] == cfgs[0][key] for c in cfgs), key
    assert all(c.model.arch == cfgs[0].model.arch for c in cfgs)
    assert cfgs[0].model.arch.depth >= 16


@pytest.mark.parametrize('task', ['maskrcnn', 'upernet'])
def test_detectors_and_segmentors_differ_in_the_weights_alone(task):
    cfgs = {p.stem: load(p) for p in BACKBONES if p.stem.startswith(task)}
    assert len(cfgs) == 3
    seen = []
    for name, cfg in cfgs.items():
        method = cfg.experiment.pop('method')
        init = cfg.model.backbone.pop('init_cfg', None)
        assert (init is None) == (method == 'scratch')
        assert init is None or f'work_dirs/vit_demo_{method}/weights/' in init.checkpoint, name
        seen.append(cfg.to_dict())
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize('path', BACKBONES, ids=lambda p: p.stem)
def test_backbones_are_the_classifiers(path):
    arch = dict(load(path).model.backbone.arch)
    theirs = dict(load(CLASSIFIERS[0]).model.arch)
    assert {k: theirs[k] for k in arch} == arch
