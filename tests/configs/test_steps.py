"""Every config in the repository takes a training step and a test step, in small, on synthetic data."""
import json
import math

import pytest
from mmengine.runner import Runner

from mmincubation.config.problems import problems
from tests.configs.test_configs import LEAVES, load, weights_of
from tests.helpers.shrink import shrink, write_data

DATA = [p for p in LEAVES if p.parent.name != 'demo']  # the demo runs whole, by `make demo`


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


@pytest.mark.parametrize('path', DATA, ids=lambda p: p.stem)
def test_trains_and_tests(path, data, tmp_path):
    cfg = shrink(load(path), data)
    cfg.work_dir, cfg.log_level, cfg.launcher = str(tmp_path), 'WARNING', 'none'
    assert problems(cfg, 'train') == problems(cfg, 'test') == []
    runner = Runner.from_cfg(cfg)
    runner.train()
    result = json.loads((tmp_path / 'result.json').read_text())
    phases = [p['name'] for p in result['phases'] if p['images']]
    incubates = cfg.model.type == 'mmincubation.IncubationModel'
    assert phases == (['meta', *(f'module_{i}' for i in range(4)), 'finetune'] if incubates else ['train'])
    assert result['metrics'] and all(v is None or math.isfinite(v) for v in result['metrics'].values())
    assert (result['weights'] or dict(path=None))['path'] == weights_of(cfg)
    runner.test()
