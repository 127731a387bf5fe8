"""On several ranks every image is evaluated, and counted, exactly once."""
import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from mmincubation.models.accuracy import Accuracy
from tests.helpers.toy import e2e_config, write_images

COUNTS = 4, 1, 2  # images of each class: 7 in all, which neither 2 nor 3 divides


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    for label, count in enumerate(COUNTS):
        for path in sorted((root / str(label)).iterdir())[count:]:
            path.unlink()
    return root


def evaluate(images, folder: Path, round_up: bool, rank: int = 0) -> None:
    """Test the same random model; write the images that this rank saw, and what rank 0's metric was given."""
    os.chdir(folder)  # mmengine collects results through a folder in the current one
    cfg = e2e_config(images, folder / 'work', experiment_name=f'{folder}-{rank}')
    cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=False, device_ids=None)
    cfg.test_evaluator.topk = (1, 2)
    cfg.test_dataloader.update(
        batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False, round_up=round_up))
    runner, given = Runner.from_cfg(cfg), []
    compute = Accuracy.compute_metrics
    Accuracy.compute_metrics = lambda self, results: given.extend(results) or compute(self, results)
    try:
        metrics = runner.test()
    finally:
        Accuracy.compute_metrics = compute
    seen = list(runner.test_dataloader.sampler)
    (folder / f'{rank}.json').write_text(json.dumps(dict(metrics=metrics, given=given, seen=seen)))


def one_rank(images, folder: Path, round_up: bool, rank: int, world: int) -> None:
    torch.distributed.init_process_group('gloo', f'file://{folder}/store', rank=rank, world_size=world)
    evaluate(images, folder, round_up, rank)
    torch.distributed.barrier()
    os._exit(0)  # gloo's threads may abort an interpreter that shuts down


@pytest.fixture(scope='module')
def alone(images, tmp_path_factory):
    folder, here = tmp_path_factory.mktemp('alone'), Path.cwd()
    evaluate(images, folder, True)
    os.chdir(here)
    return json.loads((folder / '0.json').read_text())


@pytest.mark.parametrize('world', [2, 3])
@pytest.mark.parametrize('round_up', [True, False])
def test_ranks_together_equal_one_process(images, alone, tmp_path, world, round_up):
    fork = multiprocessing.get_context('fork')
    processes = [fork.Process(target=one_rank, args=(images, tmp_path, round_up, rank, world)) for rank in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * world
    ranks = [json.loads((tmp_path / f'{rank}.json').read_text()) for rank in range(world)]
    assert ranks[0]['given'] == alone['given'] and len(alone['given']) == sum(COUNTS)  # every image, in order
    assert all(rank['metrics'] == alone['metrics'] for rank in ranks)
    seen = sorted(i for rank in ranks for i in rank['seen'])
    assert (seen == list(range(7))) == (not round_up)  # only padding evaluates an image on two ranks
