"""Numbers out of range and texts that nothing knows are refused before anything is built."""
import pytest

from mmincubation.config.problems import problems
from tests.helpers.toy import e2e_config, write_images

EARLY = dict(type='EarlyStoppingHook', monitor='accuracy/top1')
WRONG = [
    ({'randomness.seed': 'abc'}, "randomness.seed='abc': give a whole number, 0 or more"),
    ({'randomness.seed': 2**32}, 'randomness.seed=4294967296: give a whole number, 0 or more, below 2**32'),
    ({'randomness.seed': -1}, 'randomness.seed=-1: give a whole number, 0 or more'),
    ({'train_cfg.max_epochs': 0}, 'train_cfg.max_epochs=0: give a whole number, 1 or more'),
    ({'train_cfg.max_epochs': '3'}, "train_cfg.max_epochs='3': give a number"),
    ({'train_cfg.val_interval': 0}, 'train_cfg.val_interval=0: give a whole number, 1 or more'),
    ({'train_cfg.dynamic_intervals': [(1, 'x')]}, "train_cfg.dynamic_intervals.0=(1, 'x')"),
    ({'default_hooks.logger': dict(type='LoggerHook', interval=0)}, 'default_hooks.logger.interval=0'),
    ({'default_hooks.checkpoint.max_keep_ckpts': 'one'}, "checkpoint.max_keep_ckpts='one': give a number"),
    ({'train_dataloader.num_workers': -1}, 'train_dataloader.num_workers=-1: give a whole number, 0 or more'),
    ({'val_dataloader.num_workers': 'two'}, "val_dataloader.num_workers='two': give a whole number, 0 or more"),
    ({'train_dataloader.batch_size': 'twenty'}, "train_dataloader.batch_size='twenty': give a number of images"),
    ({'optim_wrapper.optimizer.lr': '1e-3'}, "optim_wrapper.optimizer.lr='1e-3': give a number"),
    ({'optim_wrapper.clip_grad.max_norm': 0}, 'clip_grad.max_norm=0: give a number above 0, or clip_grad=None'),
    ({'optim_wrapper.clip_grad.max_norm': -1.}, 'optim_wrapper.clip_grad.max_norm=-1.0: give a number above 0'),
    ({'train_dataloader.sampler.shuffle': 'no'}, "train_dataloader.sampler.shuffle='no': give True or False"),
    ({'model.with_cp': 'False'}, "model.with_cp='False': give True or False"),
    ({'resume': 'off'}, "resume='off': give True or False"),
    ({'auto_scale_lr': dict(enable='False', base_batch_size=6)}, "auto_scale_lr.enable='False': give True or False"),
    ({'train_dataloader.prefetch_factor': 0}, 'train_dataloader.prefetch_factor=0: give a whole number, 1 or more'),
    ({'model.drop_path_rate': 1.0}, 'model: ValueError: drop_path_rate=1.0: give a number from 0 to below 1'),
    ({'model.drop_path_rate': -0.1}, 'drop_path_rate=-0.1: give a number from 0 to below 1'),
    ({'optim_wrapper.clip_grad': 3}, 'optim_wrapper: '),
    ({'auto_scale_lr': dict(base_batch_size='64')}, "auto_scale_lr.base_batch_size='64': give a whole number"),
    ({'model.arch.num_classes': '3'}, "num_classes='3': give a whole number"),
    ({'model.arch.mlp_ratio': 'wide'}, "mlp_ratio='wide': give a number"),
    ({'model.arch.qkv_bias': 'no'}, "qkv_bias='no': give True or False"),
    ({'log_level': 'LOUD'}, "log_level='LOUD': choose one of DEBUG"),
    ({'env_cfg': dict(mp_cfg=dict(mp_start_method='frok'))}, "env_cfg.mp_cfg.mp_start_method='frok': choose one of "),
    ({'custom_hooks': [dict(EARLY, patience='long')]}, "custom_hooks.0.patience='long': give a number"),
]


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder, per_class=2)
    return folder


@pytest.mark.parametrize('changes, said', WRONG, ids=[c[1][:40] for c in WRONG])
def test_wrong_values_are_named_with_what_is_right(changes, said, images, tmp_path):
    found = problems(e2e_config(images, tmp_path / 'run', **changes), 'train', ranks=1)
    assert found and found[0].startswith(said) or said in found[0], found
    assert len({line.partition('=')[0] for line in found}) == len(found), found  # each once


@pytest.mark.parametrize('changes', [
    {'randomness.seed': None}, {'log_level': 20}, {'default_hooks.checkpoint.interval': -1},
    {'train_cfg.dynamic_intervals': [(2, 1)]}, {'default_hooks.checkpoint.save_best': 'accuracy/top1'}])
def test_right_values_pass(changes, images, tmp_path):
    assert problems(e2e_config(images, tmp_path / 'run', **changes), 'train', ranks=1) == []
