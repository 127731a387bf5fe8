"""Detection and segmentation, killed and resumed, end bit for bit as if nothing had happened; and resume at once."""
import random
import time
from itertools import islice
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.dataset import InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Dataset

from mmincubation.resumable.batches import resumable_loader
from tests.helpers.forked import trained
from tests.helpers.paths import ROOT
from tests.helpers.resumed import assert_same_run, killed_and_resumed
from tests.helpers.shrink import shrink, write_data

ITERATION = 'mmincubation.resumable.loops.seed_process'  # called as each iteration begins
DETECTOR, SEGMENTOR = 'coco/maskrcnn_vit_b_incub', 'ade20k/upernet_vit_b_incub'


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp('data'))


def config(name: str, data: Path, folder: Path, frozen: bool = False) -> Path:
    """A leaf in small: three epochs, or eight iterations with a checkpoint after each third, a validation at four."""
    cfg = shrink(Config.fromfile(ROOT / f'configs/{name}.py'), data)
    cfg.work_dir, cfg.model.backbone.frozen = str(folder / 'whole'), frozen
    cfg.train_dataloader.update(num_workers=2, persistent_workers=True)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.default_hooks.pop('visualization', None)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.update(max_iters=8, val_interval=4)
        cfg.default_hooks.checkpoint.update(interval=3, save_best=None)
    else:
        cfg.train_cfg.update(max_epochs=3, val_interval=1)
        cfg.default_hooks.checkpoint.update(interval=1, save_best=None)
    cfg.dump(folder / 'small.py')
    return folder / 'small.py'


@pytest.fixture(scope='module', params=[DETECTOR, SEGMENTOR], ids=['detection', 'segmentation'])
def whole(request, data, tmp_path_factory):
    """A config's path and the work dir of its undisturbed run."""
    folder = tmp_path_factory.mktemp('whole')
    path = config(request.param, data, folder)
    assert trained(path, folder / 'whole')
    return path, folder / 'whole'


def test_kills_at_chosen_moments(whole, tmp_path):
    path, undisturbed = whole
    killed_and_resumed(path, tmp_path / 'killed', [dict(kill_at=f'{ITERATION}:6'), dict(kill_at='os.replace:3'),
                                    dict(kill_at='mmengine.evaluator.evaluator.Evaluator.evaluate:1')])
    assert_same_run(tmp_path / 'killed', undisturbed)


@pytest.mark.faults
@pytest.mark.parametrize('name', [DETECTOR, SEGMENTOR])
def test_a_kill_with_a_frozen_backbone(name, data, tmp_path):
    path = config(name, data, tmp_path, frozen=True)
    assert trained(path, tmp_path / 'whole')
    killed_and_resumed(path, tmp_path / 'killed', [dict(kill_at=f'{ITERATION}:6')])
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


@pytest.mark.faults
def test_kills_at_random_moments(whole, tmp_path):
    path, undisturbed = whole
    rng = random.Random(0)
    killed_and_resumed(path, tmp_path / 'killed', [dict(kill_after=rng.uniform(.5, 5)) for _ in range(8)])
    assert_same_run(tmp_path / 'killed', undisturbed)


class Counting(Dataset):
    """ADE20K's 20,210 training images, none of which is there; notes what is asked of it."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 20210

    def __getitem__(self, index):
        self.asked.append(index)
        return index


def test_resuming_at_the_last_iteration_decodes_no_skipped_sample_and_takes_under_two_seconds():
    """The last of UperNet's 160,000 iterations of 16 images; what it reads, tells a sampler that was never moved."""
    data = Counting()
    sampler, same = InfiniteSampler(data, seed=7), InfiniteSampler(data, seed=7)
    loader = resumable_loader(DataLoader(data, batch_sampler=BatchSampler(sampler, 16, False)), 7, endless=True)
    loader.batch_sampler.seek(0, 159_999)
    begun = time.monotonic()
    batch = next(iter(loader))
    assert time.monotonic() - begun < 2
    assert data.asked == batch.tolist() == list(islice(same, 16 * 159_999, 16 * 160_000))
