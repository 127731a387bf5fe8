"""A custom key that matches nothing is said, whatever constructs the optimiser."""
import pytest
from mmengine.runner import Runner
from torch import nn

from mmincubation.engine.runner import ToolRunner


class Log(list):
    def warning(self, line):
        self.append(line)


@pytest.mark.parametrize('keys, unused', [({'bakcbone': {}, 'head': {}}, ['bakcbone']), ({'back': {}}, []), ({}, [])])
def test_unused_custom_keys_are_a_warning(monkeypatch, keys, unused):
    runner = ToolRunner.__new__(ToolRunner)
    runner.model, runner.logger = nn.ModuleDict(dict(backbone=nn.Linear(1, 1), head=nn.Linear(1, 1))), Log()
    monkeypatch.setattr(Runner, 'build_optim_wrapper', lambda self, wrapper: 'built')
    assert runner.build_optim_wrapper(dict(paramwise_cfg=dict(custom_keys=keys))) == 'built'
    assert runner.logger == ([f'optim_wrapper.paramwise_cfg.custom_keys: {unused} match no parameter of this '
                              "ModuleDict; names are like 'backbone.weight'"] if unused else [])


def test_a_built_wrapper_and_none_at_all_pass(monkeypatch):
    runner = ToolRunner.__new__(ToolRunner)
    runner.model, runner.logger = nn.Linear(1, 1), Log()
    monkeypatch.setattr(Runner, 'build_optim_wrapper', lambda self, wrapper: wrapper)
    assert [runner.build_optim_wrapper(given) for given in (None, 'wrapper', dict(paramwise_cfg=None))][1] == 'wrapper'
    assert runner.logger == []
