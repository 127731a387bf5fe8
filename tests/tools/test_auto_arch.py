"""`arch='auto'` through the tools: what it became is shown, stored, and kept when the weights are gone."""
import json

import pytest
import torch
from mmengine.config import Config

from mmincubation.inference.predictor import load_model
from mmincubation.models import Arch
from tests.helpers.tools import refused, tool
from tests.helpers.toy import ARCH, e2e_config, write_images
from tests.helpers.weight_files import random_vit

AUTO = dict(name='auto', num_heads=2, norm_eps=1e-6)


@pytest.fixture(scope='module')
def auto(tmp_path_factory):
    """A config that begins from a bare file, and its run of one epoch, after which the file is gone."""
    folder = tmp_path_factory.mktemp('auto')
    write_images(folder / 'images')
    torch.save(random_vit(Arch(**ARCH)).state_dict(), folder / 'vit.pth')
    cfg = e2e_config(folder / 'images', folder / 'run', log_level='INFO')
    cfg.model.arch, cfg.model.init_cfg = AUTO, dict(type='Pretrained', checkpoint=str(folder / 'vit.pth'))
    cfg.dump(folder / 'auto.py')
    checked = tool('check.py', folder / 'auto.py')
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = tool('train.py', folder / 'auto.py', '--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1',
                'param_scheduler.0.end=2')
    assert done.returncode == 0, done.stderr
    (folder / 'vit.pth').rename(folder / 'moved.pth')
    return folder, checked.stdout, done.stdout


def test_it_is_shown_and_stored(auto):
    folder, checked, trained = auto
    line = "model.arch='auto': embed_dim=16, depth=4, num_heads=2, patch_size=4, img_size=8, num_classes=3, from"
    assert line in checked and line in trained
    recipe = json.loads((folder / 'run/result.json').read_text())['recipe']
    assert recipe['model.arch.embed_dim'] == '16' and recipe['model.arch.num_heads'] == '2'
    assert 'auto' not in str({key: value for key, value in recipe.items() if key.startswith('model')})
    assert "name='auto'" not in (folder / 'run/auto.py').read_text()  # the resolved config


def test_without_the_file_training_is_refused_and_resuming_goes_on(auto):
    folder, _, _ = auto
    assert 'vit.pth' in refused(tool('train.py', folder / 'auto.py', '--work-dir', folder / 'new'))
    begun = json.loads((folder / 'run/result.json').read_text())['weights']
    done = tool('train.py', folder / 'auto.py', '--resume', '--allow-changed')  # a longer run than at first
    assert done.returncode == 0, done.stderr
    assert 'model.arch.' not in done.stdout  # no change of settings
    result = json.loads((folder / 'run/result.json').read_text())
    assert result['weights'] == begun and result['phases'][0]['epochs'] == 2


def test_without_the_file_a_checkpoint_is_tested_and_used(auto):
    folder, _, _ = auto
    done = tool('test.py', folder / 'auto.py', folder / 'run/epoch_1.pth', '--work-dir', folder / 'tested')
    assert done.returncode == 0 and 'accuracy/top1' in done.stdout, done.stderr
    assert load_model(folder / 'auto.py', folder / 'run/epoch_1.pth').model.vit.arch.num_heads == 2


def test_a_named_arch_resumes_without_its_file_too(auto):
    folder, _, _ = auto
    cfg = Config.fromfile(folder / 'auto.py')
    cfg.model.arch = ARCH
    cfg.dump(folder / 'named.py')
    options = ('--work-dir', folder / 'named', '--cfg-options', 'train_cfg.max_epochs=1')
    (folder / 'moved.pth').rename(folder / 'vit.pth')
    assert tool('train.py', folder / 'named.py', *options).returncode == 0
    (folder / 'vit.pth').rename(folder / 'moved.pth')
    done = tool('train.py', folder / 'named.py', '--resume', '--allow-changed', *options[:2])
    assert done.returncode == 0, done.stderr
