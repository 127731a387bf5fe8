"""Parameters spread over two CPU ranks (gloo): the run of two copies, in files that either can go on with."""
import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from mmincubation.config.problems import refuse
from mmincubation.config.sharding import sharding_problems
from mmincubation.engine import launch
from mmincubation.errors import ConfigError
from mmincubation.vit.sharding import local_shard, shard
from tests.helpers.forked import trained
from tests.helpers.resumed import assert_same_run
from tests.helpers.toy import arguments, e2e_config, incubation_config, write_images

SPREAD = dict(type='mmincubation.FullyShard')
ITERATION = 'mmincubation.resumable.loops.seed_process'


class HeldBytes(Hook):
    """Writes how many bytes of parameters, gradients and optimiser state this rank holds after its last step.

    Also counts parameters that are parts in a validation, where ranks must not wait for each other.
    """
    priority = 'LOWEST'

    def before_val_iter(self, runner, batch_idx: int, data_batch=None) -> None:
        if batch_idx == 0:  # the first would gather them
            parts = sum(isinstance(parameter, DTensor) for parameter in runner.model.parameters())
            Path(runner.work_dir, f'parts_{get_rank()}').write_text(str(parts))

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        optimizer = runner.optim_wrapper.optimizer
        state = [value for entry in optimizer.state.values() for value in entry.values() if value.ndim]
        held = dict(parameters=runner.model.parameters(), state=state)
        sizes = {name: sum(local_shard(tensor).untyped_storage().nbytes() for tensor in tensors)
                 for name, tensors in held.items()}
        Path(runner.work_dir, f'held_{get_rank()}.json').write_text(json.dumps(sizes))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('sharding')
    write_images(root / 'images')
    return root


def toy(folder, make=e2e_config, *epochs, **changes):
    """A toy run with stochastic depth; its clipping would sum in another order, see `test_clipping`.

    Not fused either: that kernel rounds the last elements of a tensor otherwise, and parts end elsewhere.
    """
    cfg = make(folder / 'images', folder / 'unused', *epochs, drop_path_rate=.3)
    cfg.optim_wrapper.clip_grad = None
    cfg.train_dataloader.batch_size = 3
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.custom_hooks.append(dict(type='tests.engine.test_sharding.HeldBytes'))
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
    """Of parameters and of what AdamW keeps; position embedding and class token have one row and are rank 0's, and the
    three rows of the head are padded to four."""
    spread = held(run(toy(folder, epochs=1), tmp_path / 'spread', wrapper=SPREAD))
    for key in ('parameters', 'state'):
        whole, *_ = {rank[key] for rank in held(copies)}
        assert whole <= sum(rank[key] for rank in spread) < 1.01 * whole
        assert all(rank[key] == pytest.approx(whole / 2, rel=.03) for rank in spread)
    assert [file.read_text() for file in sorted((tmp_path / 'spread').glob('parts_*'))] == ['0', '0']


def test_clipping(folder, tmp_path):
    """The norm of all gradients is a sum over the ranks' parts, in another order: equal up to rounding. Biases of keys,
    whose gradients are nothing but that, move most; AdamW's rate is 1e-2."""
    cfg = toy(folder)
    cfg.optim_wrapper.clip_grad, cfg.optim_wrapper.optimizer.fused = dict(max_norm=.5), True
    one, other = run(cfg, tmp_path / 'copies'), run(cfg, tmp_path / 'spread', wrapper=SPREAD)
    ours, theirs = (load_file(path / 'weights/e2e_last.safetensors') for path in (other, one))
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=2e-5)


def test_killed_and_resumed(folder, tmp_path):
    """Within an epoch too, with accumulated gradients, and with all ranks of uneven numbers of batches validating."""
    cfg = toy(folder, epochs=3)
    cfg.default_hooks.checkpoint = dict(type='CheckpointHook', by_epoch=False, interval=2)
    cfg.optim_wrapper.update(accumulative_counts=2, clip_grad=dict(max_norm=.5))
    cfg.optim_wrapper.optimizer.fused = True
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


def test_fine_tuning_of_an_incubation(folder, tmp_path):
    """Only that phase is spread; killed in it and resumed too."""
    cfg = toy(folder, incubation_config, (1, 1, 2))
    one = run(cfg, tmp_path / 'copies')
    run(cfg, tmp_path / 'spread', wrapper=SPREAD, kill_at=f'{ITERATION}:18')
    spread = run(cfg, tmp_path / 'spread', wrapper=SPREAD)
    assert_same_run(spread, one)
    assert held(spread)[0]['state'] == pytest.approx(held(one)[0]['state'] / 2, rel=.02)


def test_a_rank_of_its_own_is_not_spread(folder, tmp_path):
    """`FullyShard` in a config is no obstacle to a single device."""
    cfg = toy(folder, epochs=1)
    assert_same_run(run(cfg, tmp_path / 'one', 1, wrapper=SPREAD), run(cfg, tmp_path / 'other', 1))


@pytest.mark.parametrize('changes, named', [
    (dict(model_wrapper_cfg=dict(SPREAD, reshard_after_forward=4)), 'reshard_after_forward=4: give True or False'),
    (dict(custom_hooks=[dict(type='mmincubation.EMAHook')]), 'custom_hooks.0: an EMAHook copies the whole model'),
    (dict(optim_wrapper=dict(type='AmpOptimWrapper')), "write type='mmincubation.AutocastOptimWrapper'"),
    (dict(find_unused_parameters=True), 'find_unused_parameters: FullyShard needs')])
def test_what_cannot_work_is_refused(changes, named):
    (line, ) = sharding_problems(Config(dict(model_wrapper_cfg=SPREAD) | changes))
    assert named in line


def test_options_are_checked_by_name(folder):
    """As everything in a config is."""
    cfg = toy(folder, model_wrapper_cfg=dict(SPREAD, reshard=False))
    with pytest.raises(ConfigError, match="model_wrapper_cfg.reshard: mmincubation.FullyShard has no such key"):
        refuse(cfg, 'train')


def test_a_test_is_not_spread(folder, tmp_path):
    """tools/test.py: ranks may have different numbers of batches."""
    toy(folder, model_wrapper_cfg=SPREAD).dump(tmp_path / 'c.py')
    cfg = launch._read_config(arguments(tmp_path / 'c.py', checkpoint='x', launcher='pytorch'), 'test', 2)[0]
    assert cfg.model_wrapper_cfg.type == 'MMDistributedDataParallel'


def test_a_model_without_blocks_is_refused():
    with pytest.raises(ValueError, match='a Linear has no transformer block'):
        shard(torch.nn.Linear(1, 1))
