"""Divergence: a step that is not finite is left out on every rank, and nothing of it is ever written."""
import json
import re
from copy import deepcopy

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from mmengine.structures import BaseDataElement
from PIL import Image

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.engine.runner import ToolRunner
from mmincubation.errors import DIVERGED, DivergenceError
from mmincubation.models import ViTClassifier
from mmincubation.recovery import divergence
from mmincubation.recovery.divergence import FiniteGuard, batch_files
from tests.helpers.forked import Run, ranks
from tests.helpers.toy import e2e_config, write_images

WHITE = 'class_w.png'


class Fragile(ViTClassifier):
    """A classifier whose `where` is not finite on a batch with a white picture."""

    always = False  # else on every batch

    def __init__(self, where: str = 'loss', value: str = 'nan', **kwargs):
        super().__init__(**kwargs)
        self.where, self.value, self.handle = where, float(value), None
        self.register_buffer('seen', torch.zeros(()))

    def forward(self, inputs, labels=None, mode='tensor'):
        output = super().forward(inputs, labels, mode)
        if mode != 'loss':
            return output
        white = (inputs.amin((1, 2, 3)) > 2).any() | self.always
        if self.handle:
            self.handle.remove()
        self.handle = self.vit.norm.weight.register_hook(
            lambda grad: grad * self.value) if self.where == 'gradient' and white else None
        if self.where == 'fp16':
            self.handle = self.vit.head.weight.register_hook(lambda grad: grad.half().float())
            return output
        factor = torch.where(white, self.value, 1.)
        self.seen += output['loss'].detach() * factor  # as batch statistics would be
        if self.where == 'constant':
            return dict(output, loss_extra=factor.detach())
        return dict(loss=output['loss'] * factor) if self.where == 'loss' else output


@OPTIM_WRAPPERS.register_module()
class ScaledOnCPU(AmpOptimWrapper):
    """mmengine's wrapper and scaler, without the GPU that it asserts and without fp16."""
    optim_context = OptimWrapper.optim_context

    def __init__(self, loss_scale: float = 2.**16, **kwargs):
        OptimWrapper.__init__(self, **kwargs)
        self.loss_scaler, self._scale_update_param = torch.amp.GradScaler('cpu', init_scale=loss_scale), None


class Watch(Hook):
    """Everything that trains, before and after each iteration."""

    def __init__(self):
        self.before, self.changed = None, []

    def before_train_iter(self, runner, **_):
        self.before = state(runner)

    def after_train_iter(self, runner, **_):
        self.changed.append(not equal(self.before, state(runner)))


class Breaker(Hook):
    """Ruins a weight after each step."""

    def after_train_iter(self, runner, **_):
        runner.model.vit.head.weight.data[0] = torch.nan


def state(runner) -> dict:
    emas = [hook.ema_model.state_dict() for hook in runner.hooks if hasattr(hook, 'ema_model')]
    optimiser = runner.optim_wrapper.optimizer.state_dict()['state']
    return deepcopy(dict(model=runner.model.state_dict(), optimiser=optimiser, ema=emas))


def equal(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b)


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(root / '1' / WHITE)  # with it, 25 images
    return root


def config(images, folder, where='loss', value='nan', **changes):
    cfg = e2e_config(images, folder)
    cfg.model.update(type='tests.recovery.test_divergence.Fragile', where=where, value=value)
    cfg.experiment_name = str(folder)
    cfg.merge_from_dict(changes)
    return cfg


def train(cfg, skip: int = 0) -> tuple[ToolRunner, Watch]:
    allow_mm_checkpoints()
    runner, watch = ToolRunner.from_cfg(cfg), Watch()
    runner.register_hook(FiniteGuard(skip))
    runner.register_hook(watch, priority='LOWEST')
    runner.train()
    return runner, watch


@pytest.mark.parametrize('where, value, said', [
    ('loss', 'nan', r'the loss is not finite .*loss=nan'),
    ('loss', 'inf', r'the loss is not finite .*loss=inf'),
    ('constant', 'nan', r'the loss is not finite .*loss_extra=nan'),
    ('gradient', 'inf', r'the gradient is not finite .*loss=\d')])
def test_it_stops_and_names_losses_files_and_checkpoint(images, tmp_path, where, value, said):
    with pytest.raises(DivergenceError, match=said) as error:
        train(config(images, tmp_path, where, value))
    assert re.search(r'\(phase train\); rank 0: .* on .*\.png.*there is no checkpoint yet.*--skip-nonfinite N',
                     str(error.value))
    assert not list(tmp_path.rglob('*.pth')) and not list(tmp_path.rglob('*.safetensors'))
    log = next(tmp_path.rglob('*.log')).read_text()
    assert WHITE in log


@pytest.mark.parametrize('fused', [True, False])
@pytest.mark.parametrize('where', ['loss', 'gradient'])
def test_a_step_left_out_changes_nothing(images, tmp_path, fused, where):
    cfg = config(images, tmp_path, where, optim_wrapper=dict(optimizer=dict(fused=fused)))
    cfg.custom_hooks.append(dict(type='EMAHook'))
    runner, watch = train(cfg, skip=2)
    assert len(watch.changed) == 10 and watch.changed.count(False) == 2  # two epochs of five batches
    assert json.loads((tmp_path / 'result.json').read_text())['skipped_steps'] == 2
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_accumulated_gradients_go_with_the_step(images, tmp_path):
    cfg = config(images, tmp_path, optim_wrapper=dict(accumulative_counts=5))
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 2
    with pytest.raises(DivergenceError, match='skip-nonfinite') as error:
        train(cfg, skip=1)  # one update an epoch, and the white picture is in each
    assert 'iteration 10' in str(error.value) and str(error.value).count('loss=nan') == 1
    assert 'epoch_1.pth' in str(error.value)


def test_one_more_than_allowed_stops(images, tmp_path):
    with pytest.raises(DivergenceError, match='the last good checkpoint is .*epoch_1.pth'):
        train(config(images, tmp_path), skip=1)
    checkpoint = torch.load(tmp_path / 'epoch_1.pth')
    assert checkpoint['finite_guard'] == dict(skipped=1)
    assert all(value.isfinite().all() for value in checkpoint['state_dict'].values())


def test_the_count_goes_on_after_a_resume(images, tmp_path):
    with pytest.raises(DivergenceError):
        train(config(images, tmp_path), skip=1)
    with pytest.raises(DivergenceError):
        train(config(images, tmp_path, resume=True), skip=1)
    runner, _ = train(config(images, tmp_path, resume=True), skip=2)
    assert json.loads((tmp_path / 'result.json').read_text())['skipped_steps'] == 2


def test_weights_that_are_not_finite_are_not_saved(images, tmp_path):
    """Whatever made them so after the last step of an epoch, where no loss would show it."""
    cfg = config(images, tmp_path, where='nowhere', value='1')
    cfg.default_hooks.breaker = dict(type='tests.recovery.test_divergence.Breaker')
    cfg.train_dataloader.batch_size = 25
    with pytest.raises(DivergenceError, match='1 weights, vit.head.weight .* after iteration 1 .*no checkpoint yet'):
        train(cfg)
    assert not list(tmp_path.rglob('*.pth'))


def test_without_the_guard_a_run_would_be_poisoned(images, tmp_path):
    """The faults above are real."""
    runner = ToolRunner.from_cfg(config(images, tmp_path))
    runner.train()
    assert not all(value.isfinite().all() for value in torch.load(tmp_path / 'epoch_2.pth')['state_dict'].values())


def scaled(images, folder, where: str = 'nowhere', value: str = 'nan', **wrapper):
    cfg = config(images, folder, where, value)
    cfg.optim_wrapper.update(type='ScaledOnCPU', **wrapper)
    cfg.train_dataloader.batch_size = 1
    return cfg


@pytest.mark.parametrize('accumulative_counts', [1, 2])
def test_a_scaler_finds_its_scale_and_leaves_out_single_steps(images, tmp_path, accumulative_counts):
    """It begins with a scale by which gradients overflow in fp16."""
    cfg = scaled(images, tmp_path, 'fp16', '1', loss_scale=2.**30, accumulative_counts=accumulative_counts)
    runner, watch = train(cfg)
    assert watch.changed[:8] == [False] * 8 and sum(watch.changed) > 15 / accumulative_counts
    guard = next(hook for hook in runner.hooks if isinstance(hook, FiniteGuard))
    assert guard.skipped == 0 and not guard._losses and not guard._unread and len(guard._since_update) < 2


@pytest.mark.parametrize('where', ['loss', 'gradient', 'constant'])
@pytest.mark.parametrize('fused', [False, True])
def test_a_scaler_that_leaves_out_every_step_stops_the_run(images, tmp_path, monkeypatch, where, fused):
    monkeypatch.setattr('tests.recovery.test_divergence.Fragile.always', True)
    monkeypatch.setattr(divergence, 'SCALER_PATIENCE', 10)
    cfg = scaled(images, tmp_path, where, optimizer=dict(fused=fused))
    with pytest.raises(DivergenceError, match=f'the {"gradient" if where == "gradient" else "loss"} is not finite at '
                       'iteration 11 .* 11 steps in a row.*by --amp'):
        train(cfg)


@pytest.mark.parametrize('skip', [0, 2])
def test_all_ranks_do_the_same(images, tmp_path, skip):
    path = tmp_path / 'toy.py'
    config(images, tmp_path / 'run').dump(path)
    both = ranks(tmp_path, 2, path, '--skip-nonfinite', skip)
    codes, texts = [run.code() for run in both], [run.text() for run in both]
    if skip:
        assert codes == [0, 0], texts
        return
    assert codes == [DIVERGED, DIVERGED], texts
    (line, ) = re.findall('DivergenceError: (.*)', ''.join(texts))  # said once
    assert len(re.findall(r'rank \d: loss=nan', line)) == 1


def test_the_tool_counts_and_ends_well(images, tmp_path):
    config(images, tmp_path / 'run').dump(tmp_path / 'toy.py')
    run = Run(tmp_path / 'out', 'train', tmp_path / 'toy.py', '--skip-nonfinite', 1)
    assert run.code() == DIVERGED and 'left out (1 of 1 allowed)' in run.text()
    assert 'Traceback' not in run.text()


def test_files_of_detectors_and_segmentors():
    samples = [BaseDataElement(metainfo=dict(img_path=f'{i}.jpg')) for i in range(2)]
    assert batch_files(dict(inputs=[], data_samples=samples), None) == ['0.jpg', '1.jpg']


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU: only there could a step wait for the guard')
def test_no_step_waits_for_the_guard(images, tmp_path):
    """Synchronising calls of a run with the guard are those of a run without."""

    def waits(folder, guard: bool) -> int:
        runner = ToolRunner.from_cfg(config(images, folder, value='1', optim_wrapper=dict(optimizer=dict(fused=True))))
        if guard:
            runner.register_hook(FiniteGuard())
            runner.hooks[-1].after_train_epoch = runner.hooks[-1].before_val_epoch = lambda *_, **__: None
        torch.cuda.set_sync_debug_mode('warn')
        try:
            with pytest.warns(UserWarning) as caught:
                runner.train()
        finally:
            torch.cuda.set_sync_debug_mode('default')
        return sum('synchronizing' in str(warning.message) for warning in caught)

    assert waits(tmp_path / 'with', True) == waits(tmp_path / 'without', False)
