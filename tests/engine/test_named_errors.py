"""What cannot be built, and what fails in a step, is one line with the place in the config or the batch."""
import re

import pytest
import torch
from torch.utils.data import DataLoader

from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.engine import launch
from mmincubation.engine.named_errors import name_batches
from mmincubation.errors import DataError
from mmincubation.registry import HOOKS, METRICS, MODELS
from tests.helpers.toy import arguments, e2e_config, incubation_config, write_images


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder, per_class=2)
    return folder


def ends_with(build, images, tmp_path, capsys, **changes) -> str:
    """The line with which the training of a config ends."""
    cfg = build(images, tmp_path / 'run', **changes)
    cfg.dump(tmp_path / 'run.py')
    assert launch.train(arguments(tmp_path / 'run.py')) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


# Changes -> what `problems` says of them; nothing else shows them before a run builds.
UNBUILDABLE = [
    ({'optim_wrapper.optimizer.lr': -1}, 'optim_wrapper: ValueError: Invalid learning rate: -1'),
    ({'optim_wrapper.optimizer.betas': (2., 0.9)}, 'optim_wrapper: ValueError: Invalid beta parameter'),
    ({'optim_wrapper.clip_grad.max_nrm': 1}, 'optim_wrapper: '),
    ({'param_scheduler': [dict(type='LinearLR', start_factor=2.)]}, 'param_scheduler: ValueError: '),
    ({'custom_hooks': [dict(type='EarlyStoppingHook', monitor='accuracy/top1', rule='bigger')]}, 'custom_hooks.0: '),
    ({'custom_hooks': [dict(type='mmincubation.CostMeter', priority='HIHG')]}, 'custom_hooks.0: '),
    ({'train_dataloader.multiprocessing_context': 'frok', 'train_dataloader.num_workers': 1}, 'train_dataloader: '),
    ({'model.drop_path_rate': 'much'}, 'model.drop_path_rate='),
]


@pytest.mark.parametrize('changes, said', UNBUILDABLE, ids=[str(c[0])[:50] for c in UNBUILDABLE])
def test_what_cannot_be_built_is_a_problem_of_the_config(changes, said, images, tmp_path):
    e2e_config(images, tmp_path / 'run', **changes).dump(tmp_path / 'run.py')
    found = problems(load_config(tmp_path / 'run.py'), 'train', ranks=1)
    assert len(found) == 1 and found[0].startswith(said), found


def test_optimisers_of_later_phases_are_built_too(images, tmp_path):
    cfg = incubation_config(images, tmp_path / 'run', **{
        'train_cfg.phases.finetune.optim_wrapper': dict(optimizer=dict(lr=-2.))})
    assert problems(cfg, 'train', ranks=1) == [
        line for line in problems(cfg, 'train', ranks=1) if line.startswith('phase finetune: ValueError: Invalid')]
    assert problems(cfg, 'train', ranks=1)


@MODELS.register_module(force=True)
class FailingPreprocessor(torch.nn.Module):
    """A preprocessor that fails at its second batch."""
    calls = 0

    def forward(self, data, training=False):
        self.calls += 1
        if self.calls == 2:
            raise RuntimeError('the second batch is bad\nand more lines')
        return dict(inputs=data['inputs'].float(), labels=data['labels'])


def test_a_failing_step_names_its_batch(images, tmp_path, capsys):
    said = ends_with(e2e_config, images, tmp_path, capsys, **{
        'train_dataloader.batch_size': 3, 'model.data_preprocessor': dict(type='mmincubation.FailingPreprocessor')})
    assert said.startswith('error: iteration 2, with images of shape (3, 3, 8, 8) and the labels [')
    assert 'RuntimeError: the second batch is bad (engine/test_named_errors.py:' in said
    (log, ) = (tmp_path / 'run').glob('*/*.log')
    assert 'Traceback (most recent call last)' in log.read_text()


@METRICS.register_module(force=True)
class FailingMetric:
    """Not even a metric."""

    def __init__(self, **_):
        raise KeyError('no such thing')


@HOOKS.register_module(force=True)
class FailingHook:
    """A hook with a mistake."""

    def __init__(self):
        [][0]


def test_users_own_classes_are_named_with_their_line(images, tmp_path):
    for changes, place in (({'val_evaluator': dict(type='mmincubation.FailingMetric')}, 'val_evaluator: KeyError: '),
                           ({'custom_hooks': [dict(type='mmincubation.FailingHook')]}, 'custom_hooks.0: IndexError: ')):
        (line, ) = problems(e2e_config(images, tmp_path / 'run', **changes), 'train', ranks=1)
        assert line.startswith(place) and 'engine/test_named_errors.py:' in line


@pytest.mark.parametrize('build', [e2e_config, incubation_config])
def test_a_batch_larger_than_the_data(build, images, tmp_path, capsys):
    said = ends_with(build, images, tmp_path, capsys, **{
        'train_dataloader.drop_last': True, 'train_dataloader.batch_size': 7})
    assert said == ('error: train_dataloader: 6 images (a rank) make no whole batch of 7; give a smaller batch_size, '
                    'or drop_last=False')


def test_samples_of_several_sizes_are_named_with_their_shapes():
    """CheckedDataset names a classification image; the samples of other data sets meet in the collate function."""
    loader = DataLoader([dict(inputs=torch.zeros(3, 8, 8)), dict(inputs=torch.zeros(3, 8, 10))], batch_size=2)
    name_batches(loader, 'val_dataloader')
    said = 'val_dataloader: samples that do not fit into one batch: they have the shapes (3, 8, 8), (3, 8, 10)'
    with pytest.raises(DataError, match=re.escape(said)):
        next(iter(loader))
