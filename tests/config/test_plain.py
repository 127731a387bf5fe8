"""Classes in configs become names, so configs of mmengine's read_base() style run as those of its text style."""
import pytest
from mmengine.config import Config
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmincubation.config.load import load_config, parse_options
from mmincubation.config.problems import problems
from mmincubation.engine.runner import ToolRunner
from mmincubation.errors import ConfigError
from mmincubation.recovery.checkpoint_hook import CheckpointHook as OurCheckpointHook
from mmincubation.resumable import make_resumable

NEWER = '''
import torch
from mmcv.ops import RoIAlign
from mmcv.transforms import LoadImageFromFile, Resize
from mmdet.datasets.transforms import Resize as DetResize
from mmdet.models import MaskRCNN
from mmengine.config import read_base
from mmengine.dataset import pseudo_collate
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop
from torch import nn

from mmincubation.engine.optim import ViTOptimWrapperConstructor

with read_base():
    from .base import *

dataset_type = MaskRCNN
norm_cfg = dict(type=nn.BatchNorm2d)
model = dict(type=MaskRCNN, norm_cfg=norm_cfg, roi_layer=dict(type=RoIAlign), init=[dict(type=nn.ReLU)])
train_cfg.update(type=IterBasedTrainLoop, max_iters=2)
optim_wrapper = dict(type=OptimWrapper, constructor=ViTOptimWrapperConstructor, dtype=torch.bfloat16,
                     optimizer=dict(type=torch.optim.AdamW, lr=0.1))
custom_hooks = [dict(type=EMAHook, ema_type=ExponentialMovingAverage)]
tta_pipeline = [dict(type=LoadImageFromFile), dict(type=Resize, scale=(2, 2)), dict(type=DetResize, scale=(3, 3))]
train_dataloader = dict(collate_fn=dict(type=pseudo_collate))
default_hooks = dict(checkpoint=dict(type=CheckpointHook))
'''
AS_TEXT = dict(
    log_level='ERROR', train_cfg=dict(val_interval=1, type='IterBasedTrainLoop', max_iters=2), norm_cfg=dict(type='BN'),
    model=dict(type='MaskRCNN', norm_cfg=dict(type='BN'), roi_layer=dict(type='RoIAlign'), init=[dict(type='ReLU')]),
    optim_wrapper=dict(type='OptimWrapper', constructor='mmincubation.ViTOptimWrapperConstructor', dtype='bfloat16',
                       optimizer=dict(type='AdamW', lr=.1)),
    custom_hooks=[dict(type='EMAHook', ema_type='ExponentialMovingAverage')],
    tta_pipeline=[dict(type='LoadImageFromFile'), dict(type='mmengine.Resize', scale=(2, 2)),
                  dict(type='mmdet.Resize', scale=(3, 3))],
    train_dataloader=dict(collate_fn=dict(type='pseudo_collate')),
    default_hooks=dict(checkpoint=dict(type='CheckpointHook')), default_scope='mmdet')


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'base.py').write_text("log_level = 'ERROR'\ntrain_cfg = dict(val_interval=1)\n")
    (tmp_path / 'other.py').write_text('import torch\n')

    def write_config(text):
        (tmp_path / 'run.py').write_text(text)
        return 'run.py'

    return write_config


def test_a_read_base_config_is_the_same_as_its_text(write):
    cfg = load_config(write(NEWER), parse_options(['optim_wrapper.optimizer.lr=0.2']))
    assert cfg.optim_wrapper.optimizer.pop('lr') == .2
    cfg.optim_wrapper.optimizer.lr = .1
    assert cfg.to_dict() == AS_TEXT
    cfg.dump('dumped.py')
    assert load_config('dumped.py').to_dict() == AS_TEXT


def test_each_name_means_its_class(write):
    from mmincubation.config.signatures import resolve
    cfg = load_config(write(NEWER))
    import mmcv.transforms
    import mmdet.datasets.transforms
    kinds = [resolve(step['type'], 'mmdet')[0][1] for step in cfg.tta_pipeline]
    assert kinds[1:] == [mmcv.transforms.Resize, mmdet.datasets.transforms.Resize]


def test_problems_of_a_read_base_config_are_named(write):
    lines = problems(load_config(write(NEWER.replace('max_iters=2', 'max_iter=2'))), 'train')
    assert any(line.startswith('train_cfg.max_iter: IterBasedTrainLoop has no such key') for line in lines)
    with pytest.raises(ConfigError, match='norm_cfg is a helper variable'):
        load_config('run.py', {'norm_cfg.type': 'SyncBN'})


def test_classes_in_a_text_config_become_names_too(write):
    text = "_base_ = 'base.py'\nfrom mmengine.hooks import EMAHook\nkind = EMAHook\n"
    cfg = load_config(write(text + 'custom_hooks = [dict(type=kind), dict(type=EMAHook)]\n'))
    assert cfg.to_dict() == dict(log_level='ERROR', train_cfg=dict(val_interval=1),
                                 custom_hooks=[dict(type='EMAHook'), dict(type='EMAHook')])
    assert 'EMAHook' in cfg.pretty_text
    text = "_base_ = 'base.py'\nmodel = dict(type='X', size=(1, [2, None]))\n"
    assert type(load_config(write(text))) is Config and load_config('run.py').model.size == (1, [2, None])


def test_classes_of_other_packages_have_their_import_path(write, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'own_models.py').write_text('class Mine:\n    pass\n')
    assert load_config(write('from own_models import Mine\nmodel = dict(type=Mine)')).model.type == 'own_models.Mine'


@pytest.mark.parametrize('text, message', [
    ('class X:\n    pass\ncustom_hooks = [dict(type=X)]', 'custom_hooks.0.type is .* a config holds numbers, text'),
    ('model = dict(type=lambda: 1)', 'model.type is <function .*which a run cannot store'),
    ('from torch import nn\nmodel = dict(act=nn.ReLU)', "model.act is <class 'torch.*ReLU'>, which a run cannot store"),
    ('import functools\nmodel = dict(type=functools.partial(print))', 'model.type is functools.partial'),
    ('from mmdet.models import NoSuch\nmodel = dict(type=NoSuch)', 'Failed to import NoSuch from .* line 1'),
    ('import torch\nmodel = dict(type=torch.nn.NoSuch)', 'Failed to import torch.nn.NoSuch$'),
    ("_base_ = 'other.py'", "one of its bases is of another style: .*other.py; a config with _base_ has bases that"),
    ('import numpy as np\nmodel = dict(size=np.sqrt(4))', 'what is imported can be a type and cannot be called'),
    ('with read_base():\n    from .gone import *', 'base gone.py does not exist'),
])
def test_what_cannot_be_read_is_one_line(write, text, message):
    with pytest.raises(ConfigError, match=rf'^run\.py.*{message}') as error:
        load_config(write(text))
    assert '\n' not in str(error.value)


def test_an_error_in_a_read_base_file_has_its_file_and_line(write, tmp_path):
    (tmp_path / 'base.py').write_text('x = 1\ny = dict(\n')
    with pytest.raises(ConfigError, match=r"^base\.py:2: '\(' was never closed$"):
        load_config(write('from mmengine.config import read_base\nwith read_base():\n    from .base import *\n'))


def names_of(cls):
    return [cls, cls.__name__, f'mmengine.{cls.__name__}', f'{cls.__module__}.{cls.__name__}']


@pytest.mark.parametrize('kind', names_of(IterBasedTrainLoop) + names_of(EpochBasedTrainLoop))
def test_stock_loops_of_all_names_become_resumable(kind):
    make_resumable(cfg := dict(type=kind, max_iters=1))
    assert cfg['type'] == f'mmincubation.{"Iter" if "Iter" in str(kind) else "Epoch"}Loop'


@pytest.mark.parametrize('kind', names_of(CheckpointHook) + names_of(EMAHook))
def test_stock_hooks_of_all_names_become_ours(kind):
    runner = ToolRunner.__new__(ToolRunner)
    runner._hooks = []
    runner.register_hook(dict(type=kind))
    assert isinstance(runner._hooks[0], OurCheckpointHook) == ('Checkpoint' in str(kind))


def test_the_standard_library_can_be_used_in_both_styles(write, monkeypatch):
    monkeypatch.setenv('ROOT', '/x')
    text = """import math
import os
import os.path as osp
from functools import partial
from pathlib import Path
load_from = osp.join(os.environ['ROOT'], str(Path('a') / 'b'))
train_cfg = dict(max_iters=partial(max, 2)(int(math.sqrt(9))))
"""
    newer = 'from mmengine.hooks import EMAHook\n' + text + 'custom_hooks = [dict(type=EMAHook)]'
    want = dict(load_from='/x/a/b', train_cfg=dict(max_iters=3))
    assert load_config(write(text)).to_dict() == want
    assert load_config(write(newer)).to_dict() == want | dict(custom_hooks=[dict(type='EMAHook')])
