"""The modes of the module phases: one recipe, one result."""
import json
import os
import re
import signal
import time
from collections import Counter
from copy import deepcopy
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from safetensors.torch import load_file
from torch import distributed

from mmincubation.incubation import IncubationModel
from mmincubation.incubation.groups import ModuleGroups
from mmincubation.incubation.loop import training_step
from mmincubation.incubation.phases import read_phases, valid_mode
from tests.helpers.forked import ranks, trained
from tests.helpers.resumed import assert_same_run, killed_and_resumed
from tests.helpers.toy import begin_phase, incubation_config, write_images
from tests.resumable.test_exact_resume import ITERATION, drawing


class SlowRank:
    """A transform that takes its time on some ranks, and counts."""

    def __init__(self, slow: tuple[int, ...], folder: str):
        self.slow, self.folder = slow, folder

    def __call__(self, image):
        rank = int(os.environ.get('RANK', 0))
        time.sleep(0.03 if rank in self.slow else 0)
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
    cfg = incubation_config(folder / 'images', folder / 'unused', epochs, modules, .3, recipe=recipe)
    drawing(cfg, workers=0)
    cfg.train_cfg.mode = mode
    cfg.train_dataloader.batch_size = batch
    cfg.merge_from_dict(dict(optim_wrapper=deepcopy(optimizer or {})))
    return cfg


def run(cfg: Config, work_dir: Path, count: int = 1) -> Path:
    path = work_dir.with_suffix('.py')
    cfg.dump(path)
    assert trained(path, work_dir, count)
    return work_dir


def assert_same_weights(ours: Path, theirs: Path) -> None:
    """All files of weights, bit for bit."""
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


@pytest.mark.parametrize('recipe', ['clean', 'paper_code'])
def test_so_is_it_with_two_meta_blocks_for_a_module(folder, tmp_path, recipe):
    runs = []
    for mode in ('sequential', 'joint'):
        cfg = config(folder, mode, 2, recipe)
        cfg.model.meta_depth = 2
        runs.append(run(cfg, tmp_path / mode))
    assert len([key for key in load_file(runs[0] / 'weights/meta_last.safetensors') if 'attn.qkv.weight' in key]) == 4
    assert_same_weights(*runs)


def test_joint_is_sequential_on_two_ranks(folder, tmp_path):
    runs = [run(config(folder, mode, 2), tmp_path / mode, 2) for mode in ('sequential', 'joint')]
    assert_same_weights(*runs)


def test_parallel_is_sequential_on_two_ranks_bit_for_bit(folder, tmp_path):
    """Sums of two are the same in any order."""
    runs = [run(config(folder, mode, 2), tmp_path / mode, 2) for mode in ('sequential', 'parallel')]
    assert_same_weights(*runs)


def farthest(ours: Path, theirs: Path) -> float:
    """The largest distance of two runs' tensors, relative to their norm."""
    worst = 0.
    for file in sorted((theirs / 'weights').glob('module_*_last.safetensors')):
        a, b = load_file(ours / 'weights' / file.name), load_file(file)
        worst = max(worst, *(((a[key] - b[key]).norm() / b[key].norm()).item() for key in b))
    return worst


@pytest.mark.parametrize('count', [4, 8])
def test_parallel_is_sequential_but_for_the_order_of_sums(folder, tmp_path, count):
    """A rank adds up what in a sequential run K ranks add up: here 4, or 8 as a mesh of (4, 2)."""
    sgd = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.05, momentum=0.9))
    runs = [run(config(folder, mode, optimizer=sgd, batch=4), tmp_path / mode, count)
            for mode in ('sequential', 'parallel')]
    assert 0 < farthest(*runs) < 1e-5
    ours, theirs = (load_file(r / 'weights/meta_last.safetensors') for r in runs)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


def test_groups_wait_as_long_as_the_run(monkeypatch):
    """`env_cfg.dist_cfg.timeout`; a new group of torch has 30 minutes, or 10 on GPUs."""
    made, make = [], distributed.new_subgroups
    monkeypatch.setattr(distributed, 'new_subgroups', lambda size, timeout: (made.append(size), make(
        size, timeout=timeout))[1])
    distributed.init_process_group(
        'gloo', store=distributed.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=77))
    try:
        group = ModuleGroups([None], torch.device('cpu')).data_group
        assert group._get_backend(torch.device('cpu')).options._timeout == timedelta(seconds=77) and made == [1]
    finally:
        distributed.destroy_process_group()


def test_parallel_under_adam(folder, tmp_path):
    """Where a gradient is zero but for rounding (the biases of keys), Adam makes whole steps of the rounding."""
    runs = [run(config(folder, mode, batch=4), tmp_path / mode, 4) for mode in ('sequential', 'parallel')]
    assert farthest(*runs) < 2e-2


def test_results_of_the_modes(folder, tmp_path):
    """Metrics of each module in all modes; what was decoded, and what was computed."""
    results = {}
    for mode, count in (('sequential', 2), ('joint', 2), ('parallel', 2)):
        work_dir = run(config(folder, mode, 2), tmp_path / mode, count)
        results[mode] = json.loads((work_dir / 'result.json').read_text())
    phases = {mode: {p['name']: p for p in result['phases']} for mode, result in results.items()}
    for mode in ('joint', 'parallel'):
        assert list(phases[mode]) == ['meta', 'modules', 'module_0', 'module_1', 'assembled', 'finetune']
        for name, phase in phases['sequential'].items():
            assert phases[mode][name]['metrics'] == phase['metrics'] and phase['metrics']
        assert phases[mode]['modules']['epochs'] == 2
    once = phases['sequential']['module_0']['images']
    assert phases['joint']['modules']['images'] == once and phases['parallel']['modules']['images'] == 2 * once
    computed = [phases['sequential'][f'module_{i}']['block_forwards'] for i in (0, 1)]
    assert computed == [once * 3] * 2 and phases['parallel']['modules']['block_forwards'] == sum(computed)
    assert phases['joint']['modules']['block_forwards'] == once * (2 + 1 + 1 + 2)  # 0 then meta 1; meta 0 then 1


def test_joint_resumes_exactly(folder, tmp_path):
    cfg = config(folder, 'joint', 2)
    whole = run(cfg, tmp_path / 'whole')
    kills = [dict(kill_at=f'{ITERATION}:{n}') for n in (5, 9, 14)] + [
        dict(kill_at='mmincubation.models.accuracy.Accuracy.compute_metrics:2')]
    killed_and_resumed(tmp_path / 'whole.py', tmp_path / 'killed', kills)
    assert_same_run(tmp_path / 'killed', whole)


def test_parallel_resumes_exactly_with_a_group_ahead(folder, tmp_path):
    cfg = config(folder, 'parallel', 2, batch=2)
    cfg.train_dataloader.dataset.pipeline = [
        *cfg.train_dataloader.dataset.pipeline,
        dict(type='tests.incubation.test_modes.SlowRank', slow=(2, 3), folder=str(tmp_path))]
    whole = run(cfg, tmp_path / 'whole', 4)
    seen = [tmp_path / f'seen_{rank}' for rank in range(4)]
    for file in seen:
        file.unlink()
    # 6 iterations an epoch: the fast group dies in the second epoch of the modules
    assert not trained(tmp_path / 'whole.py', tmp_path / 'killed', 4, kill_at=f'{ITERATION}:17')
    counts = [len(file.read_text()) for file in seen]
    assert max(counts[2:]) + 8 <= min(counts[:2]), counts  # 4 images an iteration: two behind, at least
    killed_and_resumed(tmp_path / 'whole.py', tmp_path / 'killed', [dict(kill_at=f'{ITERATION}:2')], 4)
    assert_same_run(tmp_path / 'killed', whole)


def test_a_stopped_parallel_run_goes_on_exactly(folder, tmp_path):
    """SIGTERM to one rank in the phase of the modules: the groups, one of them slow, stop at the same iteration."""
    cfg = config(folder, 'parallel', 2, batch=1)  # 24 iterations an epoch
    cfg.model.pop('data_preprocessor')  # mixup needs pairs
    cfg.log_level = 'INFO'
    cfg.train_dataloader.dataset.pipeline = [
        *cfg.train_dataloader.dataset.pipeline,
        dict(type='tests.incubation.test_modes.SlowRank', slow=(1, ), folder=str(tmp_path))]
    whole = run(cfg, tmp_path / 'whole', 2)
    runs = ranks(tmp_path, 2, tmp_path / 'whole.py', '--work-dir', tmp_path / 'stopped', '--resume')
    runs[0].wait_for(r'Epoch\(train\) +\[2\]\[ *3/24\]')
    runs[1].send(signal.SIGTERM)
    assert [r.code() for r in runs] == [75, 75]
    # within the epoch, unless the machine was so busy that the signal came late
    assert re.search('stopped (after iteration .0;|in a validation|after epoch)', runs[0].text()), runs[0].text()
    killed_and_resumed(tmp_path / 'whole.py', tmp_path / 'stopped', [], 2)
    assert_same_run(tmp_path / 'stopped', whole)


@pytest.mark.parametrize('count, sizes', [(1, '4, 8, 12'), (6, '4, 8, 12'), (9, '8, 12, 16')])
def test_numbers_of_ranks_that_do_not_divide(count, sizes):
    with pytest.raises(ValueError, match=f'the 4 modules .* this run has {count}: start {sizes}, '):
        valid_mode('parallel', 4, count)
    assert valid_mode('parallel', 4, 8) == 'parallel' and valid_mode('joint', 4, count) == 'joint'


def test_what_cannot_run_side_by_side():
    phases = dict(meta=dict(epochs=1), module=dict(epochs=2), module_1=dict(epochs=3), finetune=dict(epochs=1))
    with pytest.raises(ValueError, match=r"same number of epochs, not \[2, 3\].*mode='sequential'"):
        read_phases(phases, 2, 'joint')
    with pytest.raises(ValueError, match="mode='jiont' is unknown; valid"):
        valid_mode('jiont', 2, 1)
    arch = dict(embed_dim=16, depth=6, num_heads=2, patch_size=4, img_size=16, num_classes=5)
    model = IncubationModel(arch, [2, 1, 2, 1])
    begin_phase(model, 'modules', 0.3)
    with pytest.raises(ValueError, match="block 1 has the stochastic depths.*recipe='clean'"):
        begin_phase(model, 'modules', 0.3, 'paper_code')


def test_joint_runs_what_is_upstream_and_prepares_the_batch_once():
    arch = dict(embed_dim=16, depth=8, num_heads=2, patch_size=4, img_size=16, num_classes=5)
    model = IncubationModel(arch, 4).train()
    runs = begin_phase(model, 'modules')
    calls = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    for run in runs:
        run.wrapper = OptimWrapper(torch.optim.SGD(run.unwrapped.parameters(), lr=.1))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = dict(inputs=torch.zeros(2, 3, 16, 16, dtype=torch.uint8), labels=torch.arange(2))
    logs = training_step(model, runs, batch)
    assert sorted(logs) == [f'module_{i}.loss' for i in range(4)]
    assert calls['data_preprocessor'] == 1 and [calls[f'target.blocks.{i}'] for i in range(8)] == [1] * 8
    assert [calls[f'meta.blocks.{j}'] for j in range(4)] == [1, 2, 3, 3]  # once before others, once after each of j
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert not any(name.startswith('meta.') for name in moved)
    assert {name.split('.')[2] for name in moved if '.blocks.' in name} == set('01234567')


@pytest.mark.parametrize('phase, target, meta', [
    ('meta', '', '0123hs'), ('module_0', '01s', '123h'), ('module_2', '45', '013hs'), ('module_3', '67h', '012s'),
    ('finetune', '01234567hs', ''), ('modules', '01234567hs', '0123hs')])
def test_only_what_runs_is_on_the_device(phase, target, meta):
    """Blocks by number, h the head, s the stem."""
    model = IncubationModel(dict(embed_dim=16, depth=8, num_heads=2, patch_size=4, img_size=16, num_classes=5), 4)
    begin_phase(model, phase)

    def found(vit: str) -> set[str]:
        names = [n.split('.')[1:] for n, _ in model.named_parameters() if n.startswith(vit) and model.is_resident(n)]
        return {n[1] if n[0] == 'blocks' else 'h' if n[0] in ('norm', 'head') else 's' for n in names}

    assert (found('target'), found('meta')) == (set(target), set(meta))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU: on a CPU nothing has to wait elsewhere')
def test_what_waits_is_on_the_cpu():
    arch = dict(embed_dim=16, depth=8, num_heads=2, patch_size=4, img_size=16, num_classes=5)
    model = IncubationModel(arch, 4).cuda()
    for phase in ('meta', 'module_1', 'modules', 'finetune'):
        begin_phase(model, phase)
        assert all(p.is_cuda == model.is_resident(name) for name, p in model.named_parameters())
        model(torch.zeros(2, 3, 16, 16, device='cuda'), torch.zeros(2, dtype=torch.long, device='cuda'), mode='loss')
