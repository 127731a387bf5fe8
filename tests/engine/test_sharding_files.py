"""Checkpoints of runs that are spread over ranks: those of a single device, in form and in what goes on from them."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmincubation.checkpoints import read_tensors
from tests.engine.test_sharding import ITERATION, SPREAD, run, toy
from tests.helpers.forked import ranks
from tests.helpers.resumed import flat
from tests.helpers.toy import write_images

KEYS = ('state_dict', 'optimizer', 'param_schedulers')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('sharding_files')
    write_images(root / 'images')
    return root


def small(folder: Path, count: int) -> Config:
    """Six images a step; without stochastic depth, which every rank draws for itself."""
    return toy(folder, **{'model.drop_path_rate': 0., 'train_dataloader.batch_size': 6 // count})


@pytest.fixture(scope='module')
def whole(folder):
    """Two epochs of two copies."""
    return run(small(folder, 2), folder / 'copies')


def checkpoint(work_dir: Path, epoch: int = 2) -> dict:
    return read_tensors(work_dir / f'epoch_{epoch}.pth')[0]


def test_files_have_one_form(folder, whole, tmp_path):
    """Names in their order, types and shapes: of a single device, of two copies, of one spread over two."""
    alone, spread = run(small(folder, 1), tmp_path / 'alone', 1), run(small(folder, 2), tmp_path / 'spread', 2, SPREAD)
    files = [checkpoint(path) for path in (alone, whole, spread)]
    forms = [{key: (type(value), getattr(value, 'shape', None), getattr(value, 'dtype', None))
              for key, value in flat({key: file[key] for key in KEYS}).items()} for file in files]
    assert forms[0] == forms[1] == forms[2]
    orders = [[list(file)[:5], *map(list, (file[key] for key in KEYS))] for file in files]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize('first, second', [
    ((2, SPREAD), (2, None)), ((2, None), (2, SPREAD)), ((2, SPREAD), (1, SPREAD)), ((1, None), (2, SPREAD))],
    ids=['spread to copies', 'copies to spread', 'spread to one', 'one to spread'])
def test_each_goes_on_with_the_others_checkpoint(folder, whole, tmp_path, first, second):
    """Killed in the second epoch of four steps and resumed as another kind: the weights of a run of copies, bit for bit
    where the number of ranks stays, else up to the order of sums."""
    (count, wrapper), (ranks_after, wrapper_after) = first, second
    run(small(folder, count), tmp_path / 'run', count, wrapper, kill_at=f'{ITERATION}:6')
    cfg = small(folder, ranks_after)
    if wrapper_after:
        cfg.model_wrapper_cfg = wrapper_after
    cfg.dump(tmp_path / 'other.py')
    runs = ranks(tmp_path, ranks_after, tmp_path / 'other.py', '--work-dir', tmp_path / 'run', '--resume',
                 *['--allow-changed'] * (count != ranks_after))
    assert [rank.code() for rank in runs] == [0] * ranks_after, ''.join(rank.text() for rank in runs)
    ours, theirs = flat(checkpoint(tmp_path / 'run')['state_dict']), flat(checkpoint(whole)['state_dict'])
    exact = dict(rtol=0, atol=0) if count == ranks_after else dict(rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(ours, theirs, **exact)
