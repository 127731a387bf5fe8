"""Parameters spread over two CPU ranks (gloo): the run of two copies, in files that either can go on with."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from safetensors.torch import load_file

from mmincubation.checkpoints import read_tensors
from mmincubation.models.sharding import own
from tests.forked import ranks, trained
from tests.resumed import assert_same_run, flat
from tests.toy import e2e_config, incubation_config, write_images

ROOT = Path(__file__).resolve().parents[1]
SPREAD = dict(type='mmincubation.FullyShard')
ITERATION = 'mmincubation.exact.loops.seed_process'


class HeldBytes(Hook):
    """Writes how many bytes of parameters, gradients and optimiser state this rank holds after its last step."""

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        optimizer = runner.optim_wrapper.optimizer
        state = [value for entry in optimizer.state.values() for value in entry.values() if value.ndim]
        held = dict(parameters=runner.model.parameters(), state=state)
        sizes = {name: sum(own(tensor).untyped_storage().nbytes() for tensor in tensors)
                 for name, tensors in held.items()}
        Path(runner.work_dir, f'held_{get_rank()}.json').write_text(json.dumps(sizes))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('sharding')
    write_images(root / 'images')
    return root


def toy(folder, make=e2e_config, *epochs, **changes):
    """A toy run with stochastic depth; its clipping would sum in another order, see `test_clipping`."""
    cfg = make(folder / 'images', folder / 'unused', *epochs, drop_path_rate=.3)
    cfg.optim_wrapper.clip_grad = None
    cfg.optim_wrapper.optimizer.fused = True
    cfg.train_dataloader.batch_size = 3
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.custom_hooks.append(dict(type='tests.test_sharding.HeldBytes'))
    cfg.merge_from_dict(changes)
    return cfg


def run(cfg, work_dir: Path, count: int = 2, wrapper=None, **kill) -> Path:
    cfg = Config(cfg.to_dict())
    if wrapper:
        cfg.model_wrapper_cfg = wrapper
    config = work_dir.with_suffix('.py')
    config.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(config)
    assert trained(config, work_dir, count, **kill) != bool(kill)
    return work_dir


@pytest.fixture(scope='module')
def copies(folder):
    """The work dir of a run of two copies."""
    return run(toy(folder), folder / 'copies')


@pytest.mark.parametrize('again', [True, False])
def test_the_run_of_two_copies_bit_for_bit(folder, copies, tmp_path, again):
    spread = run(toy(folder), tmp_path / 'spread', wrapper=dict(SPREAD, reshard_after_forward=again))
    assert_same_run(spread, copies)


def held(work_dir: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted(work_dir.glob('held_*.json'))]


def test_each_rank_holds_half(folder, copies, tmp_path):
    """Of parameters and of what AdamW keeps; position embedding and class token have one row and are rank 0's."""
    spread = held(run(toy(folder, epochs=1), tmp_path / 'spread', wrapper=SPREAD))
    for key in ('parameters', 'state'):
        whole, *_ = {rank[key] for rank in held(copies)}
        assert sum(rank[key] for rank in spread) == whole
        assert all(rank[key] == pytest.approx(whole / 2, rel=.02) for rank in spread)


def test_clipping(folder, tmp_path):
    """The norm of all gradients is a sum over the ranks' parts: in another order, so equal up to rounding."""
    cfg = toy(folder)
    cfg.optim_wrapper.clip_grad = dict(max_norm=.5)
    one, other = run(cfg, tmp_path / 'copies'), run(cfg, tmp_path / 'spread', wrapper=SPREAD)
    ours, theirs = (load_file(path / 'weights/e2e_last.safetensors') for path in (other, one))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)


def test_killed_and_resumed(folder, tmp_path):
    """Within an epoch too, with accumulated gradients, and with all ranks of uneven numbers of batches validating."""
    cfg = toy(folder, epochs=3)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=2)
    cfg.optim_wrapper.update(accumulative_counts=2, clip_grad=dict(max_norm=.5))
    cfg.val_dataloader.update(batch_size=4, sampler=dict(type='DefaultSampler', shuffle=False, round_up=False))
    cfg.val_dataloader.dataset.update(root=str(uneven(folder)))
    whole = run(cfg, tmp_path / 'whole', wrapper=SPREAD)
    for kill in (dict(kill_at=f'{ITERATION}:4'), dict(kill_at='os.replace:5')):
        run(cfg, tmp_path / 'killed', wrapper=SPREAD, **kill)
    run(cfg, tmp_path / 'killed', wrapper=SPREAD)
    assert_same_run(tmp_path / 'killed', whole)


def uneven(folder: Path) -> Path:
    """9 images: of batches of 4 one rank has two, the other one."""
    root = folder / 'uneven'
    if not root.exists():
        write_images(root, 3)
    return root


def checkpoint(work_dir: Path, epoch: int) -> dict:
    return read_tensors(work_dir / f'epoch_{epoch}.pth')[0]


def test_files_have_one_form(folder, copies, tmp_path):
    """Tensors and numbers by name, their types and shapes, the weights' metadata: those of a single device."""
    alone = toy(folder)
    alone.train_dataloader.batch_size = 6
    files = [checkpoint(path, 2) for path in (
        run(alone, tmp_path / 'alone', 1), copies, run(toy(folder), tmp_path / 'spread', wrapper=SPREAD))]
    forms = [{key: (type(value), getattr(value, 'shape', None), getattr(value, 'dtype', None))
              for key, value in flat({k: file[k] for k in ('state_dict', 'optimizer', 'param_schedulers')}).items()}
             for file in files]
    assert forms[0] == forms[1] == forms[2]
    orders = [(list(file)[:4], list(file['state_dict']), list(file['optimizer'])) for file in files]
    assert orders[0] == orders[1] == orders[2]


@pytest.mark.parametrize('first, second', [
    ((2, SPREAD), (2, None)), ((2, None), (2, SPREAD)), ((2, SPREAD), (1, SPREAD)), ((1, None), (2, SPREAD))])
def test_each_goes_on_with_the_others_checkpoint(folder, copies, tmp_path, first, second):
    """A run of one epoch goes on as another kind; the second epoch is that of two copies, or of one in this batch."""
    cfg = toy(folder)
    assert_resumes(cfg, tmp_path, first, second, copies)


def assert_resumes(cfg, tmp_path, first, second, copies):
    (count, wrapper), (counts, other) = first, second
    cfg.train_dataloader.batch_size = 6 // count
    run(cfg, tmp_path / 'run', count, wrapper, kill_at=f'{ITERATION}:{6}')  # in the second epoch of four iterations
    cfg.train_dataloader.batch_size = 6 // counts
    cfg = Config(cfg.to_dict())
    if other:
        cfg.model_wrapper_cfg = other
    cfg.dump(tmp_path / 'other.py')
    runs = ranks(tmp_path, counts, tmp_path / 'other.py', '--work-dir', tmp_path / 'run', '--resume', '--allow-changed')
    assert [rank.code() for rank in runs] == [0] * counts, ''.join(rank.text() for rank in runs)
    ours, theirs = (checkpoint(path, 2)['state_dict'] for path in (tmp_path / 'run', copies))
    if 1 not in (count, counts):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_fine_tuning_of_an_incubation(folder, tmp_path):
    """Only that phase is spread; killed in it and resumed too."""
    cfg = toy(folder, incubation_config, (1, 1, 2))
    one = run(cfg, tmp_path / 'copies')
    run(cfg, tmp_path / 'spread', wrapper=SPREAD, kill_at=f'{ITERATION}:18')
    spread = run(cfg, tmp_path / 'spread', wrapper=SPREAD)
    assert_same_run(spread, one)
    assert held(spread)[0]['state'] == pytest.approx(held(one)[0]['state'] / 2, rel=.02)
