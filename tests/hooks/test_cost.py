"""Cost meter and result hook inside a small mmengine run."""
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, HOOKS, LOOPS, METRICS, MODELS
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import nn
from torch.utils.data import Dataset

from mmincubation.hooks import cost
from mmincubation.hooks.cost import CostMeter
from mmincubation.hooks.result import ResultHook
from mmincubation.result import read_result, write_result
from mmincubation.resumable import timed_loader as timed
from mmincubation.resumable.protocol import LoopProtocol


class Clock:
    """Stands still but for an image that is loaded (one second) and a validation (a thousand)."""
    now = 0.0


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    for module in (cost, timed):
        monkeypatch.setattr(module, 'perf_counter', lambda: Clock.now)


@DATASETS.register_module(name='CostNumbers')
class Numbers(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, index):
        Clock.now += 1
        return dict(inputs=torch.full((2, ), float(index)))


@MODELS.register_module(name='CostToy')
class Toy(BaseModel):
    block_forwards = 3
    division = [0, 1]

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.load_report = None

    def forward(self, inputs, mode='tensor'):
        out = self.linear(torch.stack(list(inputs)))
        return dict(loss=out.square().mean()) if mode == 'loss' else list(out)


@METRICS.register_module(name='CostCount')
class Count(BaseMetric):
    """Says how often it was asked, and some values that no table can hold."""
    default_prefix = 'toy'
    asked = 0

    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        Clock.now += 1000
        Count.asked += 1
        return dict(asked=Count.asked, nothing=float('nan'), name='text')


@LOOPS.register_module(name='CostPhasedLoop')
class PhasedLoop(LoopProtocol, EpochBasedTrainLoop):
    """One epoch for each phase, and the attributes by which the hooks know an incubation loop."""

    def __init__(self, runner, dataloader, names, phase=None):
        super().__init__(runner, dataloader, max_epochs=1 if phase else len(names), val_begin=99)
        self.names, self.only_phase = [phase] if phase else names, phase
        self.assembled = None

    @property
    def phase_name(self):
        return self.assembled or self.names[min(self._epoch, len(self.names) - 1)]

    def run_epoch(self):
        if self.phase_name == 'finetune':
            self.assembled = 'assembled'
            self.runner.val_loop.run()
            self.assembled = None
        super().run_epoch()
        self._epoch -= 1  # the phase validates before it is over
        self.runner.val_loop.run()
        self._epoch += 1


@HOOKS.register_module(name='CostSlowEpochEnd')
class SlowEpochEnd(Hook):
    """What else happens between two epochs, such as writing a checkpoint."""
    priority = 'LOWEST'

    def after_train_epoch(self, runner):
        Clock.now += 500


PHASES = ['meta', 'module_0', 'module_1', 'finetune']
LISTED = ['meta', 'module_0', 'module_1', 'assembled', 'finetune']


def make_runner(work_dir, hooks=None, train=None, model='CostToy', load_from=None, resume=False, **changes):
    loader = dict(batch_size=4, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    cfg = Config(dict(
        experiment=dict(task='classification', model='toy', method='e2e'), work_dir=str(work_dir), resume=resume,
        load_from=load_from, model=dict(type=model), randomness=dict(seed=5),
        train_dataloader=dict(**loader, dataset=dict(type='CostNumbers')),
        val_dataloader=dict(**loader, dataset=dict(type='CostNumbers')),
        train_cfg=train or dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=2), val_cfg=dict(type='ValLoop'),
        val_evaluator=dict(type='CostCount'), optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)), log_level='ERROR',
        custom_hooks=[dict(type='mmincubation.CostMeter'), dict(type='mmincubation.ResultHook'),
                      dict(type='CostSlowEpochEnd')]))
    cfg.custom_hooks = cfg.custom_hooks if hooks is None else hooks
    cfg.merge_from_dict(changes)
    runner = Runner.from_cfg(cfg)
    runner.load_checkpoint = trusting(runner)
    return runner


def trusting(runner):
    """`Runner.load_checkpoint` for files of this test: mmengine's own need pickle, see tests of safe loading."""
    def load(filename, *_, **__):
        checkpoint = torch.load(filename, weights_only=False)
        runner.call_hook('after_load_checkpoint', checkpoint=checkpoint)
        runner.model.load_state_dict(checkpoint['state_dict'])
        return checkpoint
    return load


def meter_of(runner) -> CostMeter:
    return next(hook for hook in runner.hooks if isinstance(hook, CostMeter))


def test_result_of_a_run(tmp_path):
    weights, pictures = tmp_path / 'weights', tmp_path / '20300101_000000' / 'vis_data' / 'vis_image'
    for folder in (weights, pictures):
        folder.mkdir(parents=True)
    (weights / 'e2e_last.safetensors').write_bytes(b'abc')
    (pictures / 'a.png').write_bytes(b'')
    make_runner(tmp_path).train()
    result = read_result(tmp_path / 'result.json')
    (phase, ) = result['phases']
    assert (phase['name'], phase['epochs'], phase['images'], phase['block_forwards']) == ('train', 2, 20, 60)
    assert (result['images_seen'], result['block_forwards'], result['seed'], result['devices']) == (20, 60, 5, 1)
    assert result['device_seconds'] == phase['seconds'] == 20
    assert result['metrics'] == phase['metrics'] == {'toy/asked': Count.asked, 'toy/nothing': None}
    assert result['notes'] == {'toy/nothing': 'the validation gave nan'}
    assert result['outputs'] == [
        dict(path='weights/e2e_last.safetensors', sha256=hashlib.sha256(b'abc').hexdigest())]
    assert result['pictures'] == ['20300101_000000/vis_data/vis_image/a.png']
    assert result['versions']['torch'].split('+')[0] == torch.__version__.split('+')[0]
    assert result['weights'] is None and result['data']['train_size'] == 10 and result['peak_memory_mib'] > 10


def test_resumed_run_counts_as_one(tmp_path):
    make_runner(tmp_path, train=dict(type='EpochBasedTrainLoop', max_epochs=1)).train()
    first = read_result(tmp_path / 'result.json')
    runner = make_runner(tmp_path, resume=True, train=dict(type='EpochBasedTrainLoop', max_epochs=3))
    runner.train()
    result = read_result(tmp_path / 'result.json')
    assert (first['images_seen'], result['images_seen'], result['block_forwards']) == (10, 30, 90)
    assert (first['device_seconds'], result['device_seconds']) == (10, 30)
    assert result['phases'][0]['epochs'] == 3
    checkpoint = torch.load(tmp_path / 'epoch_3.pth', weights_only=False)
    kinds = {type(value) for value in checkpoint['cost_meter']['train'].values()}
    assert kinds == {int, float} and checkpoint['cost_meter']['train']['images'] == 30


def test_weights_bring_no_counters(tmp_path):
    make_runner(tmp_path / 'a').train()
    make_runner(tmp_path / 'b', load_from=str(tmp_path / 'a' / 'epoch_2.pth')).train()
    assert read_result(tmp_path / 'b' / 'result.json')['images_seen'] == 20


def test_run_killed_before_its_last_validation_validates_when_resumed(tmp_path):
    make_runner(tmp_path).train()
    asked = Count.asked
    make_runner(tmp_path, resume=True).train()  # epoch_2.pth is written before the validation of epoch 2
    assert Count.asked == asked + 1
    assert read_result(tmp_path / 'result.json')['metrics'] == {'toy/asked': asked + 1, 'toy/nothing': None}


def test_validation_between_iterations_is_not_training(tmp_path):
    train = dict(type='IterBasedTrainLoop', max_iters=6, val_interval=2)
    sampler = {'train_dataloader.sampler.type': 'InfiniteSampler'}
    make_runner(tmp_path, train=train, **sampler, **{'default_hooks.checkpoint.by_epoch': False}).train()
    result = read_result(tmp_path / 'result.json')
    assert result['images_seen'] == 24 and result['phases'][0]['epochs'] == 2.4
    assert result['device_seconds'] == 24


@MODELS.register_module(name='CostUncounted')
class Uncounted(Toy):
    block_forwards = None


def test_model_that_does_not_count_blocks(tmp_path):
    make_runner(tmp_path, model='CostUncounted').train()
    result = read_result(tmp_path / 'result.json')
    assert result['block_forwards'] is None and result['phases'][0]['block_forwards'] is None


def test_all_ranks_are_counted(monkeypatch):
    monkeypatch.setattr(cost, 'get_world_size', lambda: 4)
    loop = LoopProtocol()
    loop.phase_name = 'meta'
    runner = SimpleNamespace(model=Toy(), _train_loop=loop)
    meter = CostMeter()
    meter.before_train_epoch(runner)
    Clock.now += 2.5
    meter.after_train_iter(runner, 0, dict(inputs=[0, 1, 2]))
    assert meter.phases == {'meta': dict(iters=1, images=12, block_forwards=36, seconds=10.0)}


def test_phases_keep_their_own_cost_and_metrics(tmp_path):
    before = Count.asked
    make_runner(tmp_path, train=dict(type='CostPhasedLoop', names=PHASES)).train()
    result = read_result(tmp_path / 'result.json')
    assert [phase['name'] for phase in result['phases']] == LISTED
    assert [phase['images'] for phase in result['phases']] == [10, 10, 10, 0, 10] and result['images_seen'] == 40
    asked = [phase['metrics']['toy/asked'] for phase in result['phases']]
    assert asked == sorted(set(asked)) and asked[0] > before and result['metrics'] == result['phases'][-1]['metrics']


def test_phases_before_a_resume_are_kept(tmp_path):
    train = dict(type='CostPhasedLoop', names=PHASES)
    make_runner(tmp_path, train=train).train()
    first = read_result(tmp_path / 'result.json')
    make_runner(tmp_path, train=train, resume=True, load_from=str(tmp_path / 'epoch_2.pth')).train()
    result = read_result(tmp_path / 'result.json')
    assert [phase['name'] for phase in result['phases']] == LISTED and result['images_seen'] == 40
    assert result['phases'][0]['metrics'] == first['phases'][0]['metrics'] != {}
    assert result['metrics'] != first['metrics']


def test_phases_run_alone_are_joined_in_their_order(tmp_path):
    for name, metrics_known in [('meta', False), ('module_1', False), ('module_0', False), ('finetune', True)]:
        make_runner(tmp_path, train=dict(type='CostPhasedLoop', names=PHASES, phase=name)).train()
        result = read_result(tmp_path / 'result.json')
        assert bool(result['metrics']) == metrics_known, 'a hybrid is not the result of the run'
    assert [phase['name'] for phase in result['phases']] == LISTED
    assert (result['images_seen'], result['block_forwards']) == (40, 120)
    make_runner(tmp_path, train=dict(type='CostPhasedLoop', names=PHASES, phase='module_0')).train()
    again = read_result(tmp_path / 'result.json')
    assert again['images_seen'] == 40 and again['metrics'] == result['metrics']
    other = {'randomness.seed': 6}
    make_runner(tmp_path, train=dict(type='CostPhasedLoop', names=PHASES, phase='meta'), **other).train()
    assert read_result(tmp_path / 'result.json')['images_seen'] == 10, 'another config begins anew'


def test_broken_earlier_result_is_replaced(tmp_path):
    (tmp_path / 'result.json').write_text('{')
    make_runner(tmp_path, train=dict(type='CostPhasedLoop', names=PHASES, phase='meta')).train()
    assert read_result(tmp_path / 'result.json')['images_seen'] == 10


def test_what_cannot_end_in_a_result_does_not_begin(tmp_path):
    runner = make_runner(tmp_path, hooks=[dict(type='mmincubation.ResultHook')])
    with pytest.raises(ValueError, match='CostMeter'):
        runner.train()
    runner = make_runner(tmp_path, **{'experiment.task': 'poetry'})
    with pytest.raises(ValueError, match='experiment.task'):
        runner.train()
    assert not (tmp_path / 'result.json').exists()


def test_rewriting_a_real_result_is_the_identity(tmp_path):
    make_runner(tmp_path).train()
    result = read_result(tmp_path / 'result.json')
    write_result(tmp_path / 'again.json', result)
    assert (tmp_path / 'again.json').read_bytes() == (tmp_path / 'result.json').read_bytes()


def test_metrics_of_numpy_types_are_numbers():
    """mmseg's IoUMetric returns np.float32, which is no Python float."""
    hook = ResultHook()
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[]))
    runner = SimpleNamespace(_train_loop=None, iter=3, hooks=[CostMeter()], val_loop=loop)
    hook.after_val_epoch(runner, {'mIoU': np.float32(20.5), 'mAcc': np.float64(30), 'classes': 'ten'})
    assert hook.metrics == {'train': {'mIoU': 20.5, 'mAcc': 30.0}}
    assert all(type(value) is float for value in hook.metrics['train'].values())
