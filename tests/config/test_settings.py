"""Two runs that differ in seed, folders, names and weights alone share a recipe."""
from copy import deepcopy

import pytest
from mmengine.config import Config

from mmincubation.config.settings import recipe_of
from tests.helpers.paths import ROOT


@pytest.fixture(scope='module', params=['demo/vit_demo_e2e', 'coco/maskrcnn_vit_b_e2e', 'ade20k/upernet_vit_b_e2e'])
def cfg(request):
    return Config.fromfile(ROOT / f'configs/{request.param}.py')


def changed(cfg: Config, **options) -> Config:
    cfg = deepcopy(cfg)
    cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
    return cfg


@pytest.mark.parametrize('options', [
    dict(randomness__seed=5), dict(work_dir='w'), dict(load_from='a.pth'), dict(log_level='ERROR'), dict(resume=True),
    dict(train_dataloader__num_workers=3), dict(train_dataloader__dataset__data_root='/mnt/other'),
    dict(train_dataloader__dataset__root='/mnt/other'), dict(experiment__method='mine'), dict(experiment__note='x'),
    dict(default_hooks__logger__interval=7), dict(default_hooks__checkpoint__interval=7), dict(compile=True),
    dict(custom_hooks=[dict(type='mmincubation.CostMeter')]), dict(train_cfg__val_interval=3),
    dict(train_dataloader__dataset__ann_file='/mnt/a.json'), dict(auto_scale_lr__base_batch_size=3),
    dict(val_dataloader__batch_size=5)])
def test_the_same_recipe(cfg, options):
    assert recipe_of(changed(cfg, **options), 1) == recipe_of(cfg, 1)


@pytest.mark.parametrize(('options', 'key'), [
    (dict(optim_wrapper__optimizer__lr=0.3), 'optim_wrapper.optimizer.lr'),
    (dict(custom_hooks=[dict(type='mmincubation.EMAHook')]), 'custom_hooks'),
    (dict(auto_scale_lr=dict(enable=True, base_batch_size=3)), 'auto_scale_lr.base_batch_size'),
    (dict(train_dataloader__batch_size=3), 'batch'), (dict(optim_wrapper__accumulative_counts=2), 'batch')])
def test_another_recipe(cfg, options, key):
    one, two = recipe_of(cfg, 1), recipe_of(changed(cfg, **options), 1)
    apart = {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)}
    assert apart and all(f'{name}.'.startswith(f'{key}.') for name in apart)


def test_the_batch_counts_and_not_how_it_is_shared_out(cfg):
    batch = cfg.train_dataloader.batch_size
    assert recipe_of(changed(cfg, train_dataloader__batch_size=2 * batch), 1) == recipe_of(cfg, 2) != recipe_of(cfg, 1)


def test_weights_are_no_part_of_it():
    recipes = [recipe_of(Config.fromfile(path), 1) for path in (ROOT / 'configs/demo').glob('maskrcnn_*.py')]
    assert len(recipes) > 2 and all(recipe == recipes[0] for recipe in recipes)


def test_phases_start_mode_and_image_sizes_are():
    cfg = Config.fromfile(ROOT / 'configs/imagenet/vit_b_incub.py')
    recipe = recipe_of(cfg, 8)
    assert recipe['train_cfg.phases.meta.epochs'] == '300' and recipe['batch'] == '2048'
    assert recipe['train_dataloader.dataset.pipeline.0.input_size'] == '224'
    assert recipe != recipe_of(changed(cfg, train_cfg__mode='joint'), 8)
    assert recipe != recipe_of(changed(cfg, train_cfg__start='grow'), 8)


def test_equal_values_in_other_types_are_equal():
    one = Config(dict(train_dataloader=dict(batch_size=1), model=dict(size=(96, 96), rate=1.0)))
    two = Config(dict(train_dataloader=dict(batch_size=1), model=dict(size=[96, 96], rate=1)))
    assert recipe_of(one, 1) == recipe_of(two, 1) and recipe_of(one, 1)['model.size'] == '[96, 96]'
