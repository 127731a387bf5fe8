"""What a config asks for and would never happen, or would be read under another name, is a line before the run."""
from pathlib import Path

import pytest
from mmengine.config import Config

from mmincubation.config.counting import counting_problems
from mmincubation.config.keys import key_problems
from mmincubation.config.load import load_config, parse_options
from mmincubation.config.old_keys import SUCCESSORS, old_metainfo_problems

ITERATIONS = [dict(type='IterBasedTrainLoop', max_iters=9), dict(type='mmengine.IterBasedTrainLoop', max_iters=9),
              dict(type='mmincubation.IterLoop', max_iters=9), dict(by_epoch=False, max_iters=9)]
EPOCHS = [dict(type='EpochBasedTrainLoop', max_epochs=9), dict(max_epochs=9), dict(type='mmincubation.EpochLoop')]


def lines(loop, **settings):
    return list(counting_problems(Config(dict(train_cfg=loop, default_scope='mmdet', **settings))))


@pytest.mark.parametrize('schedule', [dict(type='MultiStepLR', milestones=[8, 11]), dict(type='PolyLR', by_epoch=True)])
@pytest.mark.parametrize('loop', ITERATIONS)
def test_a_schedule_of_epochs_in_a_loop_over_iterations(loop, schedule):
    good = dict(type='LinearLR', by_epoch=False, end=5)
    assert [line.partition(': ')[0] for line in lines(loop, param_scheduler=[good, schedule])] == ['param_scheduler.1']
    assert lines(loop, param_scheduler=schedule)[0].startswith('param_scheduler.0: ')
    assert lines(loop, param_scheduler=[dict(schedule, by_epoch=False), dict(schedule, convert_to_iter_based=True),
                                        dict(type='ReduceOnPlateauLR', monitor='x')]) == []


@pytest.mark.parametrize('loop', EPOCHS)
def test_both_kinds_of_schedule_move_in_a_loop_over_epochs(loop):
    hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    schedules = [dict(type='MultiStepLR', milestones=[8]), dict(type='LinearLR', by_epoch=False)]
    assert lines(loop, param_scheduler=schedules, default_hooks=hooks) == []


@pytest.mark.parametrize('loop', ITERATIONS)
def test_checkpoints_by_epoch_in_a_loop_over_iterations(loop):
    hook = dict(type='CheckpointHook', interval=1)
    line, = lines(loop, default_hooks=dict(checkpoint=hook))
    assert line.startswith('default_hooks.checkpoint: it counts epochs') and 'by_epoch=False' in line
    assert lines(loop, custom_hooks=[dict(hook, type='mmincubation.CheckpointHook')])[0].startswith('custom_hooks.0: ')
    for fine in (dict(hook, by_epoch=False), dict(hook, interval=-1)):
        assert lines(loop, default_hooks=dict(checkpoint=fine)) == []


@pytest.mark.parametrize('key', SUCCESSORS)
def test_keys_of_older_versions_are_named_with_what_they_became(tmp_path, key):
    (tmp_path / 'base.py').write_text('log_level = 1\n')
    (tmp_path / 'c.py').write_text(f"_base_ = 'base.py'\n{key} = dict(x=1)\n")
    line, = key_problems(load_config(tmp_path / 'c.py'))
    assert line == f'{key}: nothing reads this top-level key; of older versions, now {SUCCESSORS[key]}'


def test_metainfo_in_capitals_is_not_read():
    dataset = dict(type='RepeatDataset', dataset=dict(metainfo=dict(CLASSES=('a',), palette=[(1, 1, 1)], note='x')))
    assert list(old_metainfo_problems(dict(train_dataloader=dict(dataset=dataset)))) == [
        'train_dataloader.dataset.dataset.metainfo.CLASSES is not read; write classes']


def test_the_home_is_completed_wherever_a_path_is_written(tmp_path):
    home = str(Path.home())
    text = "work_dir = '~/runs'\nmodel = dict(init=[dict(checkpoint='~/w.pth'), 'a~/b', '~'])\n"
    (tmp_path / 'c.py').write_text(text)
    cfg = load_config(tmp_path / 'c.py', parse_options(['load_from=~/x y.pth']))
    assert cfg.work_dir == f'{home}/runs' and cfg.load_from == f'{home}/x y.pth'
    assert cfg.model.init == [dict(checkpoint=f'{home}/w.pth'), 'a~/b', '~']
