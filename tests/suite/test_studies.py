"""The studies: their files can be read, and the methods that they compare cost the same."""
from functools import cache
from pathlib import Path

import pytest
from mmengine.config import Config

from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.config.settings import recipe_of
from mmincubation.suite.runs import read_suite
from mmincubation.suite.settings import Settings
from tests.configs.test_configs import header
from tests.configs.test_controls import block_forwards_of, stated_cost
from tests.helpers.paths import ROOT

STUDIES = sorted((ROOT / 'studies').glob('*.py'))


@cache
def configs(study: Path) -> dict[str, Config]:
    suite = read_suite(study)
    settings = Settings(suite)
    return {name: settings.of(run).cfg for name, run in suite.runs.items() if run.config}


CONFIGS = sorted((ROOT / 'studies/configs').glob('*.py'))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_each_config_is_right_and_its_header_says_its_cost(path, here):
    cfg, text = load_config(path.relative_to(ROOT)), header(path)
    assert not [line for line in problems(cfg, 'train') if 'does not exist' not in line]
    assert f'python tools/train.py {path.relative_to(ROOT)}' in text
    if cfg.experiment.task != 'classification':
        return
    assert stated_cost(text) == block_forwards_of(cfg)


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_each_study_has_folders_and_rows_of_its_own(path, here):
    suite = read_suite(path)
    assert suite.work_dir.parts == ('work_dirs', 'study', path.stem)
    assert suite.results.parts == ('results', 'study', path.stem)
    rows = [tuple(recipe_of(cfg, 1).items()) + tuple(cfg.experiment.items()) + (cfg.randomness.seed, )
            for cfg in configs(path).values()]
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize('path', STUDIES, ids=lambda path: path.stem)
def test_no_run_is_refused_for_more_than_missing_files(path, here):
    first_seeds = {name: cfg for name, cfg in configs(path).items() if cfg.randomness.seed == 0}
    assert first_seeds
    for name, cfg in first_seeds.items():
        assert not [line for line in problems(cfg, 'train') if 'does not exist' not in line], name


def test_all_methods_of_a_table_cost_the_same(here):
    for path in STUDIES:
        if path.stem.endswith('_lr'):
            continue
        costs: dict[tuple, set[int]] = {}
        for cfg in configs(path).values():
            if cfg.experiment.task == 'classification':
                costs.setdefault((cfg.experiment.model, cfg.experiment.data), set()).add(block_forwards_of(cfg))
        for (model, _), found in costs.items():
            assert len(found) == 1, (model, found)
            assert f'{found.pop():,} blocks an image' in model
