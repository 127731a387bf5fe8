"""No training step waits for the device: between two log lines the host asks for no value."""
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from PIL import Image

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.engine.runner import HOOK_REPLACEMENTS, ToolRunner
from mmincubation.errors import DivergenceError
from mmincubation.hooks.runtime_info import on_host
from mmincubation.recovery import divergence as finite
from mmincubation.recovery.divergence import FiniteGuard
from mmincubation.resumable import make_resumable
from tests.helpers.paths import ROOT
from tests.helpers.resumed import logged
from tests.helpers.shrink import shrink
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco
from tests.helpers.toy import e2e_config, incubation_config
from tests.helpers.waits import waits_of
from tests.recovery.test_divergence import WHITE
from tests.recovery.test_divergence import config as fragile

AUGMENTED = dict(
    erasing=dict(type='timm.data.random_erasing.RandomErasing', probability=0.5, mode='pixel'),
    mixup=dict(type='timm.data.Mixup', mixup_alpha=0.8, cutmix_alpha=1., label_smoothing=0.1, num_classes=3))


@pytest.fixture
def with_white(images, tmp_path_factory):
    """The images, and one more for which a `Fragile` is not finite."""
    root = copytree(images, tmp_path_factory.mktemp('white') / 'images')
    Image.fromarray(np.full((8, 8, 3), 255, np.uint8)).save(root / '1' / WHITE)
    return root


@pytest.fixture
def costly(monkeypatch):
    """Reading a flag costs something, as on a GPU."""
    monkeypatch.setattr(finite.Flag, 'free', False)


def logging(cfg, every: int, **optimizer):
    """Fused, as the configs of this project; log lines `every` so many iterations of eight in an epoch."""
    cfg.train_dataloader.batch_size = 3
    cfg.experiment_name = cfg.work_dir
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=every)
    cfg.optim_wrapper.optimizer.update(fused=True, **optimizer)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    return cfg


def guarded(cfg, skip: int = 0) -> ToolRunner:
    allow_mm_checkpoints()
    runner = ToolRunner.from_cfg(cfg)
    runner.register_hook(FiniteGuard(skip))
    return runner


def waiting_steps(cfg) -> list[int]:
    """Iterations (from 0) in which the host asks for a value."""
    return sorted(i for i in waits_of(guarded(cfg)).places if i >= 0)


# --- which steps wait

def test_steps_wait_where_they_are_logged(images, tmp_path, costly):
    assert waiting_steps(logging(e2e_config(images, tmp_path, drop_path_rate=0.2), 4)) == [3, 7, 11, 15]


def test_neither_do_bfloat16_augmentation_and_accumulation(images, tmp_path, costly):
    cfg = logging(e2e_config(images, tmp_path), 100)
    cfg.train_dataloader.batch_size = 6
    cfg.model.data_preprocessor = dict(type='mmincubation.ClsDataPreprocessor', **AUGMENTED)
    cfg.optim_wrapper.update(type='mmincubation.AutocastOptimWrapper', accumulative_counts=2)
    assert waiting_steps(cfg) == [3, 7]  # the ends of the epochs


def test_nor_do_the_phases_of_an_incubation(images, tmp_path, costly):
    cfg = logging(incubation_config(images, tmp_path, drop_path_rate=0.2), 100)
    assert waiting_steps(cfg) == [7, 15, 23, 31]


def test_an_average_waits_in_fine_tuning_alone(images, tmp_path, costly):
    cfg = logging(incubation_config(images, tmp_path), 100)
    cfg.custom_hooks.append(dict(type='mmincubation.EMAHook'))
    assert waiting_steps(cfg) == [7, 15, *range(23, 32)]


def test_mmengine_waits_in_each(images, tmp_path, costly, monkeypatch):
    monkeypatch.setattr('mmincubation.engine.runner.HOOK_REPLACEMENTS', {})
    assert waiting_steps(logging(e2e_config(images, tmp_path), 4)) == list(range(16))


@pytest.mark.parametrize('name, count', [('coco/maskrcnn_vit_b_incub', 53), ('ade20k/upernet_vit_b_incub', 4)])
def test_heads_of_mmdet_and_mmseg_wait_by_themselves(name, count, tmp_path, costly):
    """In a step as often as docs/measurements/kernels.md says, and nothing of ours is among it."""
    write_coco(tmp_path / 'data/coco')
    write_ade(tmp_path / 'data/ade/ADEChallengeData2016')
    cfg = shrink(Config.fromfile(ROOT / f'configs/{name}.py'), tmp_path / 'data')
    cfg.work_dir, cfg.experiment_name, cfg.custom_hooks = str(tmp_path / 'run'), name, []
    cfg.default_hooks = dict(logger=dict(type='LoggerHook', interval=100), checkpoint=dict(type='CheckpointHook'))
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.train_dataloader.update(batch_size=1 if 'coco' in name else 2)
    cfg.train_dataloader.dataset.indices = 4
    cfg.train_cfg.pop('val_interval')
    cfg.train_cfg.update(dict(max_epochs=1) if 'max_epochs' in cfg.train_cfg else dict(max_iters=2))
    make_resumable(cfg.train_cfg)
    runner = guarded(cfg)
    found = waits_of(runner).places[0]
    assert sum(found.values()) == count and not [place for place in found if 'mmincubation' in place], found
    assert runner.model.data_preprocessor._non_blocking


# --- what is logged

def numbers(cfg) -> tuple[dict, dict]:
    """The lines that a run has logged, and the history of its numbers in the last checkpoint."""
    guarded(cfg).train()
    hub = torch.load(Path(cfg.work_dir, 'epoch_2.pth'))['message_hub']['log_scalars']
    return logged(Path(cfg.work_dir)), {key: buffer.data[0].tolist() for key, buffer in hub.items()
                                        if key.startswith('train/') and 'time' not in key}


def test_the_log_is_mmengines(images, tmp_path, monkeypatch):
    ours = numbers(logging(e2e_config(images, tmp_path / 'ours'), 3))
    monkeypatch.setattr('mmincubation.engine.runner.HOOK_REPLACEMENTS', {
        key: value for key, value in HOOK_REPLACEMENTS.items() if value.__name__ == 'CheckpointHook'})
    theirs = numbers(logging(e2e_config(images, tmp_path / 'theirs'), 3))
    assert ours == theirs and len(ours[0]) == 5 and {'train/loss', 'train/grad_norm'} <= ours[1].keys()
    assert len(ours[1]['train/grad_norm']) == 16


def test_numbers_of_any_kind_arrive_as_they_are():
    values = [torch.tensor([0.1]), 3, torch.tensor(7), torch.tensor(0.1, dtype=torch.bfloat16), 0.5,
              torch.tensor(0.1, dtype=torch.float64), torch.tensor([[0.3]])]
    expected = [value.item() if isinstance(value, torch.Tensor) else value for value in values]
    assert on_host(values) == expected and [type(v) for v in on_host(values)] == [type(v) for v in expected]


# --- the guard reads later, and lets nothing through

class Save(Hook):
    """A checkpoint after the first iteration, as a preemption would write it."""
    priority = 'LOWEST'

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 0:
            runner.save_checkpoint(runner.work_dir, 'now.pth', by_epoch=False)


def poisoned(folder, images, every: int = 100, **changes):
    """Whose first batch, of five, has the white picture; in file order."""
    cfg = fragile(images, folder, **changes)
    cfg.train_dataloader.sampler.shuffle = False
    cfg.train_dataloader.batch_size = 5
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=every)
    cfg.optim_wrapper.optimizer.fused = True
    return cfg


def white_in(images) -> int:
    """The iteration that sees the white picture."""
    return [path.name for path in sorted(images.glob('*/*'))].index(WHITE) // 5 + 1


@pytest.mark.parametrize('every, where', [(4, 'loss'), (100, 'loss'), (100, 'gradient')])
def test_the_guard_names_the_step_that_it_reads_about_later(with_white, tmp_path, costly, every, where):
    cfg = poisoned(tmp_path, with_white, every, where=where)
    runner = guarded(cfg)
    with pytest.raises(DivergenceError, match=f'the {where} is not finite at iteration 4 .*no checkpoint yet'):
        runner.train()
    assert runner.iter == (3 if every == 4 else 4) and white_in(with_white) == 4
    assert not list(tmp_path.rglob('*.pth')) and WHITE in next(tmp_path.rglob('*.log')).read_text()
    assert all(value.isfinite().all() for value in runner.model.state_dict().values() if value.ndim)


def test_a_checkpoint_within_an_epoch_reads_first(images, tmp_path, costly):
    cfg = logging(e2e_config(images, tmp_path), 100)
    runner = guarded(cfg)
    runner.register_hook(Save())
    runner.train()
    assert len(torch.load(tmp_path / 'now.pth')['message_hub']['log_scalars']['train/loss'].data[0]) == 1


def test_no_checkpoint_after_a_step_that_is_not_finite(with_white, tmp_path, costly):
    cfg = poisoned(tmp_path, with_white)
    cfg.train_dataloader.batch_size = 25
    cfg.train_cfg.max_epochs = 1
    runner = guarded(cfg)
    runner.register_hook(Save())
    with pytest.raises(DivergenceError, match='at iteration 1 '):
        runner.train()
    assert not list(tmp_path.rglob('*.pth'))


@pytest.mark.parametrize('skip, hooks', [(1, []), (0, [dict(type='EMAHook')])])
def test_where_steps_may_be_left_out_or_averaged_each_is_read(with_white, tmp_path, costly, skip, hooks):
    cfg = poisoned(tmp_path, with_white)
    cfg.custom_hooks += hooks
    runner = guarded(cfg, skip)
    with pytest.raises(DivergenceError):
        runner.train()
    assert runner.iter == (8 if skip else 3)  # the second time, or the first


@pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU: only there does a host wait')
@pytest.mark.parametrize('phases', [False, True])
def test_a_gpu_is_not_waited_for(images, tmp_path, phases):
    """CUDA's own watch, over all steps that no log line follows."""
    cfg = logging((incubation_config if phases else e2e_config)(images, tmp_path), 100)
    cfg.train_dataloader.pin_memory = True

    class Strict(Hook):
        priority = 'HIGHEST'

        def before_train_iter(self, runner, batch_idx, data_batch=None):
            last = batch_idx + 1 == len(runner.train_dataloader)
            torch.cuda.set_sync_debug_mode('default' if last or not runner.iter else 'error')

        def after_train_epoch(self, runner):
            torch.cuda.set_sync_debug_mode('default')

    runner = guarded(cfg)
    runner.register_hook(Strict())
    try:
        runner.train()
    finally:
        torch.cuda.set_sync_debug_mode('default')
