"""The modes of the module phases: one recipe, one result."""
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import load_file

from mmincubation.incubation import IncubationModel
from mmincubation.incubation.phases import check_mode, read_phases
from tests.forked import ranks, trained
from tests.resumed import assert_same_run, killed_and_resumed
from tests.test_exact_resume import ITERATION, drawing
from tests.toy import incubation_config, write_images

MODULES = [f'module_{i}_last' for i in range(4)]


class SlowRank:
    """A transform that takes its time on some ranks, and counts."""

    def __init__(self, slow: tuple[int, ...], folder: str):
        self.slow, self.folder = slow, folder

    def __call__(self, image):
        rank = int(os.environ.get('RANK', 0))
        time.sleep(0.05 if rank in self.slow else 0)
        with open(Path(self.folder, f'seen_{rank}'), 'a') as file:
            file.write('.')
        return image


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('modes')
    write_images(root / 'images', per_class=16)
    return root


def config(folder, mode: str, modules: int = 4, recipe: str = 'clean', epochs=(1, 2, 1), batch: int = 6,
           optimizer: dict | None = None) -> Config:
    """Draws in the loader, in mixup and in the blocks; a checkpoint and a validation each epoch."""
    cfg = drawing(incubation_config(folder / 'images', folder / 'unused', epochs, modules, .3, recipe=recipe), workers=0)
    cfg.train_cfg.mode = mode
    cfg.train_dataloader.batch_size = batch
    cfg.optim_wrapper.merge(optimizer or {}) if hasattr(cfg.optim_wrapper, 'merge') else cfg.merge_from_dict(
        dict(optim_wrapper=optimizer or {}))
    return cfg


def run(cfg: Config, work_dir: Path, count: int = 1) -> Path:
    path = work_dir.with_suffix('.py')
    cfg.dump(path)
    assert trained(path, work_dir, count)
    return work_dir


def assert_same_weights(ours: Path, theirs: Path, names=None) -> None:
    files = sorted(path.name for path in (theirs / 'weights').glob('*.safetensors'))
    assert set(files) == {path.name for path in (ours / 'weights').glob('*.safetensors')} and len(files) > 6
    for name in files:
        a, b = load_file(ours / 'weights' / name), load_file(theirs / 'weights' / name)
        assert [key for key in b if not torch.equal(a[key], b[key])] == [], name


BF16 = dict(type='mmincubation.AutocastOptimWrapper', optimizer=dict(fused=True), accumulative_counts=2)


@pytest.mark.parametrize('recipe, optimizer', [('clean', {}), ('clean', BF16), ('paper_code', {})])
def test_joint_is_sequential_bit_for_bit(folder, tmp_path, recipe, optimizer):
    runs = [run(config(folder, mode, recipe=recipe, optimizer=optimizer), tmp_path / mode)
            for mode in ('sequential', 'joint')]
    assert_same_weights(*runs)


def test_joint_is_sequential_on_two_ranks(folder, tmp_path):
    runs = [run(config(folder, mode, 2), tmp_path / mode, 2) for mode in ('sequential', 'joint')]
    assert_same_weights(*runs)


def test_parallel_is_sequential_on_two_ranks_bit_for_bit(folder, tmp_path):
    """Sums of two are the same in any order."""
    runs = [run(config(folder, mode, 2), tmp_path / mode, 2) for mode in ('sequential', 'parallel')]
    assert_same_weights(*runs)
