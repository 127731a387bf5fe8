"""What every run does without being told: the seed it keeps, the lines it begins with, the result it writes."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank

from mmincubation.engine import console, launch, ranks, seeds
from mmincubation.engine.runner import ToolRunner
from mmincubation.errors import ConfigError
from mmincubation.models.accuracy import Accuracy
from mmincubation.registry import METRICS
from mmincubation.result import read_result
from tests.helpers.forked import ranks as start_ranks
from tests.helpers.toy import arguments, e2e_config, incubation_config, write_images


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp('images')
    write_images(folder / 'images')
    return folder / 'images'


def train(cfg, work_dir, *options, **given) -> int:
    path = work_dir.parent / f'{work_dir.name}.py'
    cfg.dump(path)
    name = f'experiment_name={work_dir}-{len(options)}-{sorted(given.items())}'.replace(' ', '').replace(',', ';')
    return launch.train(arguments(path, name, *options, work_dir=str(work_dir), **given))


def unseeded(images, work_dir, make=e2e_config, randomness=None, **changes):
    cfg = make(images, work_dir, **changes)
    cfg.pop('randomness')
    if randomness is not None:
        cfg.randomness = randomness
    return cfg


@pytest.mark.parametrize('randomness', [None, dict(deterministic=False), dict(seed=None)], ids=str)
def test_a_seed_that_nobody_gave_is_drawn_once(images, tmp_path, randomness):
    assert train(unseeded(images, tmp_path / 'a', randomness=randomness), tmp_path / 'a') == 0
    seed = int((tmp_path / 'a/seed').read_text())
    checkpoint = torch.load(tmp_path / 'a/epoch_2.pth', weights_only=False)
    assert checkpoint['meta']['seed'] == seed == read_result(tmp_path / 'a/result.json')['seed']
    (tmp_path / 'a/seed').unlink()  # the checkpoint has it too
    cfg = unseeded(images, tmp_path / 'a', randomness=randomness)
    assert train(cfg, tmp_path / 'a', resume=str(tmp_path / 'a/epoch_1.pth')) == 0
    assert read_result(tmp_path / 'a/result.json')['seed'] == seed
    again = torch.load(tmp_path / 'a/epoch_2.pth', weights_only=False)
    assert all(torch.equal(again['state_dict'][key], value) for key, value in checkpoint['state_dict'].items())


def test_another_folder_draws_another_seed_and_a_folder_keeps_its_own(images, tmp_path):
    drawn = [seeds.seed_of(unseeded(images, tmp_path), str(tmp_path / name)) for name in 'abca']
    assert len(set(drawn)) == 3 and drawn[0] == drawn[3] and all(0 <= seed < 2**31 for seed in drawn)
    (tmp_path / 'a/seed').write_text('eleven\n')
    with pytest.raises(ConfigError, match="a/seed holds no seed but 'eleven': delete it, or set randomness.seed"):
        seeds.seed_of(unseeded(images, tmp_path), str(tmp_path / 'a'))


def test_phases_that_run_alone_share_the_seed_and_the_result(images, tmp_path):
    for phase in ('meta', 'module_0'):
        cfg = unseeded(images, tmp_path / 'run', incubation_config)
        assert train(cfg, tmp_path / 'run', phase=phase) == 0
    result = read_result(tmp_path / 'run/result.json')
    assert [phase['name'] for phase in result['phases']] == ['meta', 'module_0']
    assert result['seed'] == int((tmp_path / 'run/seed').read_text()) and not (tmp_path / 'run/meta/seed').exists()


def test_all_ranks_draw_the_same_seed(images, tmp_path):
    cfg = unseeded(images, tmp_path / 'run', log_level='DEBUG')
    cfg.custom_hooks.append(dict(type='tests.engine.test_habits.WritesSeed'))
    cfg.dump(tmp_path / 'run.py')
    both = start_ranks(tmp_path, 2, tmp_path / 'run.py')
    assert [run.code() for run in both] == [0, 0], both[0].text()
    seen = [(tmp_path / f'run/seed_of_{rank}').read_text() for rank in range(2)]
    assert seen[0] == seen[1] == (tmp_path / 'run/seed').read_text().strip()


class WritesSeed:
    """Build a hook that writes the seed of each rank."""

    def __new__(cls):
        from mmengine.hooks import Hook

        class Writes(Hook):

            def before_train(self, runner):
                with open(f'{runner.work_dir}/seed_of_{get_rank()}', 'w') as file:
                    file.write(str(runner.seed))

        return Writes()


def test_the_console_begins_with_what_matters(images, tmp_path, capfd):
    cfg = e2e_config(images, tmp_path / 'run', log_level='INFO')
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=4)
    cfg.auto_scale_lr = dict(base_batch_size=12)
    assert train(cfg, tmp_path / 'run') == 0
    lines = [line.partition(' - mmengine - ')[2] for line in capfd.readouterr().out.splitlines()]
    starts = ['WARNING - ', 'INFO - trains: ViTClassifier, ', 'INFO - train: mmincubation.ImageFolder ',
              'INFO - val: mmincubation.ImageFolder ', 'INFO - length: 2 epochs of 4 iterations',
              'INFO - weights: the config names none', 'INFO - seed: 5', 'INFO - device: ',
              f'INFO - work dir: {tmp_path}/run; the whole log is in ']
    assert all(line.startswith(start) for line, start in zip(lines, starts, strict=False)), lines[:10]
    assert 'Epoch(train)' in lines[len(starts)] or 'Exp name' in lines[len(starts)]
    (log, ) = (tmp_path / 'run').glob('*/*.log')
    assert 'System environment' in log.read_text() and 'trains: ViTClassifier' in log.read_text()


@pytest.mark.parametrize('model, said', [
    (dict(type='A', backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='a.pth'))),
     'model.backbone.init_cfg.checkpoint=a.pth'),
    (dict(type='A', pretrained=True), 'model.pretrained=True'),
    (dict(type='A', pretrained=None), 'the config names none')])
def test_weights_that_others_load_are_not_called_random(model, said):
    runner = SimpleNamespace(_resume=False, _load_from=None, model=torch.nn.Linear(1, 1), cfg=Config(dict(model=model)))
    assert console.weights_line(runner) == f'weights: {said}'


def test_at_the_level_debug_the_console_shows_all(images, tmp_path, capfd):
    assert train(e2e_config(images, tmp_path / 'run', log_level='DEBUG'), tmp_path / 'run') == 0
    said = capfd.readouterr().out
    assert 'System environment' in said and 'trains: ViTClassifier' in said


def test_experiment_alone_gives_a_result(images, tmp_path):
    for hooks in ([], [dict(type='mmincubation.ResultHook')]):
        folder = tmp_path / f'run_{len(hooks)}'
        cfg = e2e_config(images, folder, epochs=1)
        cfg.custom_hooks = hooks
        assert train(cfg, folder) == 0
        assert read_result(folder / 'result.json')['images_seen'] == 24
    cfg = e2e_config(images, tmp_path / 'none', epochs=1)
    cfg.custom_hooks = []
    cfg.pop('experiment')
    assert train(cfg, tmp_path / 'none') == 0 and not (tmp_path / 'none/result.json').exists()


@METRICS.register_module(force=True)
class OwnAccuracy(Accuracy):
    """A metric whose scores no config tells: a wrong name ends the run at its first validation."""


@pytest.mark.parametrize('change, line', [
    (dict(custom_hooks=[dict(type='EarlyStoppingHook', monitor='accuracy/top2', rule='greater')]),
     "EarlyStoppingHook.monitor='accuracy/top2': the validation gives accuracy/top1; "),
    (dict(param_scheduler=[dict(type='ReduceOnPlateauLR', monitor='accuracy/loss', rule='less')]),
     "ReduceOnPlateauLR.monitor='accuracy/loss': the validation gives accuracy/top1; "),
    (dict(default_hooks=dict(checkpoint=dict(type='mmincubation.CheckpointHook', save_best='accuracy/top2'))),
     'default_hooks.checkpoint.save_best: the validation gives no accuracy/top2; it gives accuracy/top1')])
def test_a_metric_that_is_not_measured_is_named(images, tmp_path, capfd, change, line):
    cfg = e2e_config(images, tmp_path / 'run', epochs=1)
    cfg.val_evaluator.type = 'mmincubation.OwnAccuracy'
    cfg.merge_from_dict(change)
    assert train(cfg, tmp_path / 'run') == 2
    (said, ) = [text for text in capfd.readouterr().err.splitlines() if text.startswith('error: ')]
    assert said.startswith(f'error: {line}') and (tmp_path / 'run/epoch_1.pth').exists()


def test_settings_of_workers_are_left_out_where_there_are_none(images):
    cfg = e2e_config(images, 'unused')
    for kind in ('train', 'val', 'test'):
        loader = cfg[f'{kind}_dataloader']
        loader.update(num_workers=0, persistent_workers=True, prefetch_factor=4)
        assert len(ToolRunner.build_dataloader(loader, seed=0)) == 4
        loader.update(num_workers=1)
        assert ToolRunner.build_dataloader(loader, seed=0).prefetch_factor == 4


def test_a_refusal_of_many_ranks_is_said_once(tmp_path):
    both = start_ranks(tmp_path, 2, tmp_path / 'missing.py')
    assert [run.code() for run in both] == [2, 2]
    assert (both[0].text() + both[1].text()).count('error: ') == 1


def test_a_refusal_after_the_ranks_have_met_is_said_once(images, tmp_path):
    cfg = e2e_config(images, tmp_path / 'run')
    cfg.custom_hooks = [dict(type='EarlyStoppingHook', monitor='accuracy/top2', rule='greater')]
    cfg.dump(tmp_path / 'run.py')
    both = start_ranks(tmp_path, 2, tmp_path / 'run.py')
    assert [run.code() for run in both] == [2, 2], both[0].text()
    assert (both[0].text() + both[1].text()).count('error: ') == 1


def test_a_rank_speaks_if_nobody_counts(monkeypatch):
    monkeypatch.setenv('LOCAL_RANK', '1')
    assert not ranks.first_to_say('a')
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    assert ranks.first_to_say('a')
