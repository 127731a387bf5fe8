"""A package that is not there is one line with what installs it, and never a guess."""
import importlib.util

import pytest

from mmincubation.config import packages
from mmincubation.config.load import load_config
from mmincubation.config.types import type_problems
from mmincubation.errors import ConfigError


@pytest.fixture(autouse=True)
def nothing_optional(monkeypatch):
    """Without the packages of the table, whatever this machine has."""
    for module in (packages, importlib.util):
        monkeypatch.setattr(module, 'find_spec', lambda name, package=None, find=importlib.util.find_spec:
                            None if name in packages.NEEDS.values() else find(name, package))


def step(**kwargs):
    return dict(train_dataloader=dict(dataset=dict(type='CocoDataset', pipeline=[kwargs])))


@pytest.mark.parametrize('config, line', [
    (dict(model=dict(type='mmpretrain.X')), "model.type: 'mmpretrain.X' needs the package 'mmpretrain', which is not "
     'installed: `pip install mmpretrain`'),
    (dict(model=dict(type='mmpretran.X')), "model.type: 'mmpretran.X' needs the package 'mmpretran', which is not "
     "installed (nearest: 'mmpretrain')"),
    (dict(model=dict(type='other.X')), "model.type: 'other.X' needs the package 'other', which is not installed"),
    (dict(default_scope='mmpose'), "default_scope: 'mmpose' needs the package 'mmpose', which is not installed: "
     '`pip install mmpose`'),
    (dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type='WandbVisBackend')])), 'visualizer.vis_backends.0'
     ".type: 'WandbVisBackend' needs the package 'wandb', which is not installed: `pip install wandb`"),
    (dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type='mmengine.TensorboardVisBackend')])), 'visualizer.'
     "vis_backends.0.type: 'mmengine.TensorboardVisBackend' needs the package 'tensorboard', which is not installed: "
     '`pip install tensorboard`'),
    (dict(optim_wrapper=dict(optimizer=dict(type='Lion', lr=1))), "optim_wrapper.optimizer.type: 'Lion' needs the "
     "package 'lion_pytorch', which is not installed: `pip install lion-pytorch`"),
    (step(type='Albu', transforms=[]), "train_dataloader.dataset.pipeline.0.type: 'Albu' needs the package "
     "'albumentations', which is not installed: `pip install albumentations`"),
    (dict(model=dict(type='torch.nn.Nope')), "model.type: 'torch.nn.Nope' cannot be imported: torch.nn has no Nope"),
    (dict(model=dict(type='os.path.nope')), "model.type: 'os.path.nope' cannot be imported: os.path has no nope"),
])
def test_types_of_packages_that_are_not_installed(config, line):
    assert list(type_problems(dict(default_scope='mmdet') | config)) == [line]


@pytest.mark.parametrize('text, line', [
    ("custom_imports = dict(imports=['mmpretrain.models'])", "custom_imports: No module named "
     "'mmpretrain': `pip install mmpretrain`"),
    ("custom_imports = dict(imports=['own'])", "custom_imports: No module named 'sklearnx' "
     "(nearest: 'sklearn')"),
    ("custom_imports = dict(imports=['here'])", "custom_imports: No module named 'here': it lies "
     'in this folder, which Python does not search; begin the command with PYTHONPATH=.'),
    ("custom_imports = 'own'", "custom_imports: write it as dict(imports=['package.module'])"),
    ('from mmpretrain.models import V\nmodel = dict(type=V)', 'ModuleNotFoundError: Failed to import mmpretrain.models '
     "in run.py, line 1 for No module named 'mmpretrain': `pip install mmpretrain`"),
])
def test_imports_of_packages_that_are_not_installed(tmp_path, monkeypatch, text, line):
    (tmp_path / 'path').mkdir()
    (tmp_path / 'path/own.py').write_text('import sklearnx\n')
    (tmp_path / 'here.py').write_text('')
    monkeypatch.syspath_prepend(tmp_path / 'path')
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'run.py').write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config('run.py')
    assert str(error.value).removeprefix('run.py: ') == line


@pytest.mark.parametrize('name', ['soft_nms', 'nms', 'FPN_CARAFE'])
def test_ops_that_nothing_stands_for_are_named_before_the_run(name):
    nms = dict(test_cfg=dict(nms=dict(type=name, iou_threshold=.5)))
    node = dict(type=name) if name == 'FPN_CARAFE' else nms
    found = [line for line in type_problems(dict(default_scope='mmdet', model=node)) if 'compiled' in line]
    place = 'model.type' if name == 'FPN_CARAFE' else 'model.test_cfg.nms.type'
    line = f'{place}: {name} needs compiled ops of mmcv, which are not installed; choose another'
    assert found == ([] if name == 'nms' else [line])
