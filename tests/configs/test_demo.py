"""The demo's configs say what they are and differ in nothing else."""

import pytest
from mmengine.config import Config

from tests.helpers.paths import ROOT

LEAVES = sorted((ROOT / 'configs/demo').glob('*.py'))
BACKBONES = [p for p in LEAVES if p.stem.startswith(('maskrcnn_', 'upernet_'))]
CLASSIFIERS = [p for p in LEAVES if p.stem.startswith('vit_demo_')]


def load(path) -> Config:
    return Config.fromfile(path)


def test_classifiers_share_model_and_data():
    cfgs = [load(p) for p in CLASSIFIERS]
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator', 'randomness'):
        assert all(c[key] == cfgs[0][key] for c in cfgs), key
    for cfg in cfgs:
        if cfg.experiment.method != 'meta_only':
            assert cfg.model.arch.pop('depth') == 24
    assert {cfg.model.arch.pop('depth', None) for cfg in cfgs} == {None, 4}
    assert all(c.model.arch == cfgs[0].model.arch for c in cfgs)


def test_runs_validate_often_enough_for_curves():
    for path in LEAVES:
        loop = load(path).train_cfg
        assert loop.val_interval == (loop.max_iters // 4 if 'max_iters' in loop else 1), path.stem


@pytest.mark.parametrize('task', ['maskrcnn', 'upernet'])
def test_detectors_and_segmentors_differ_in_the_weights_alone(task):
    cfgs = {p.stem: load(p) for p in BACKBONES if p.stem.startswith(task)}
    assert len(cfgs) == 4
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
