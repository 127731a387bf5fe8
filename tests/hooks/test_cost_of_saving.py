"""Writing a checkpoint between two iterations is not training."""
import pytest

from mmincubation.engine import runner
from mmincubation.engine.launch import train
from mmincubation.hooks import cost
from mmincubation.recovery.checkpoint_files import write_checkpoint
from mmincubation.result import read_result
from mmincubation.resumable import timed_loader
from tests.helpers.toy import arguments, e2e_config


class Clock:
    """Stands still but for an image that is loaded (one second) and a checkpoint (five hundred)."""
    now = 0.0


class Second:
    """A transform that takes a second."""

    def __call__(self, image):
        Clock.now += 1
        return image


@pytest.mark.parametrize('loop', [dict(type='mmincubation.IterLoop', max_iters=8, val_interval=3),
                                  dict(type='mmincubation.EpochLoop', max_epochs=2, val_interval=1)])
def test_seconds_are_those_of_training(images, tmp_path, monkeypatch, loop):
    def write(*args) -> None:
        Clock.now += 500
        write_checkpoint(*args)

    for module in (cost, timed_loader):
        monkeypatch.setattr(module, 'perf_counter', lambda: Clock.now)
    monkeypatch.setattr(runner, 'write_checkpoint', write)
    checkpoint = dict(by_epoch=False, interval=2, save_best='accuracy/top1')
    cfg = e2e_config(images, tmp_path, default_hooks=dict(checkpoint=checkpoint))
    cfg.train_dataloader.dataset.pipeline = [dict(type='tests.hooks.test_cost_of_saving.Second')]
    cfg.train_cfg, cfg.param_scheduler = loop, []
    cfg.dump(tmp_path / 'run.py')
    assert train(arguments(tmp_path / 'run.py')) == 0
    result = read_result(tmp_path / 'result.json')
    assert result['images_seen'] == result['device_seconds'] == 48
