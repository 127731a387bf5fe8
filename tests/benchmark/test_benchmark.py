"""tools/benchmark.py: steps are those of training, the reference is the same function, tables say what was timed."""
import contextlib
import importlib.util
import json
import os
from argparse import Namespace
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmincubation.benchmark import flops, loading, memory, page
from mmincubation.benchmark.batches import synthetic
from mmincubation.benchmark.flops import count_flops, matrix_rates, summary
from mmincubation.benchmark.measure import Options, batch_of, measure, ratios
from mmincubation.benchmark.reference import PublicStep, network
from mmincubation.benchmark.run import main
from mmincubation.benchmark.steps import Phases, build, plain
from mmincubation.benchmark.table import render, valid_result
from mmincubation.benchmark.units import BlockFlops, of_phase
from mmincubation.config.load import load_config
from mmincubation.models import Arch, Division
from mmincubation.vit.transformer import attention_as_on_gpus
from tests.benchmark.test_units import ARCH, CPU, DEPTHS
from tests.helpers.forked import CONTEXT, LIMIT, free_port
from tests.helpers.paths import ROOT
from tests.helpers.toy import begin_phase, incubation_config

PHASES = ['meta', 'module_0', 'module_1', 'module_3', 'finetune']


@pytest.fixture(scope='module')
def cfg():
    cfg = incubation_config('none', 'none', modules=DEPTHS)
    cfg.model.arch = ARCH
    return cfg


@pytest.fixture(scope='module')
def toy(tmp_path_factory, cfg):
    path = tmp_path_factory.mktemp('benchmark') / 'incub.py'
    cfg.dump(path)
    return path


@pytest.mark.parametrize('phase', PHASES)
def test_the_reference_is_the_same_function_with_the_same_gradients(cfg, phase):
    """In float32, of what trains; and it computes the public code's other gradients, which ours does not."""
    torch.manual_seed(0)
    model = build(cfg, CPU)
    batch = model.data_preprocessor(synthetic(cfg, (16, 16), 4), training=True)
    begin_phase(model, phase)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    model(**batch, mode='loss')['loss'].backward()
    ours = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    public, of_optimizer = network(model)
    F.cross_entropy(public(batch['inputs']), batch['labels']).backward()
    theirs = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(ours) == trained == {name for name, _ in of_optimizer}
    for name in trained:
        torch.testing.assert_close(ours[name], theirs[name])
    unused = {name.split('.')[1] + '.' + name.split('.')[2] for name in set(theirs) - trained}
    last = {'norm.weight', 'norm.bias', 'head.weight', 'head.bias'}
    assert unused == dict(module_0={'blocks.1', 'blocks.2', 'blocks.3', *last},
                          module_1={'blocks.2', 'blocks.3', *last}).get(phase, set())


def test_the_public_step_trains_its_module_alone_and_keeps_the_rest(cfg):
    model = build(cfg, CPU)
    before = deepcopy(model.state_dict())
    begin_phase(model, 'module_1')
    step = PublicStep(model, synthetic(cfg, (16, 16), 4), 1e-2, 0.05)
    step()
    first = model.meta.head.weight.grad.clone()
    step()
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {f'target.{name}' for name in model.division.entries_of(dict(model.target.named_parameters()), 1)}
    assert not model.meta.head.weight.grad.equal(first)  # gradients downstream add up, unused
    assert model.meta.blocks[0].mlp.fc1.weight.grad is None and model.target.blocks[1].mlp.fc1.weight.grad is None


def test_our_step_is_train_step_of_the_phase(cfg):
    phases, model = Phases(cfg), build(cfg, CPU)
    step = phases.ours(model, 'module_1', synthetic(cfg, (16, 16), 4))
    before = deepcopy(model.state_dict())
    assert set(step()) == {'loss'}
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed == {f'target.{name}' for name in model.division.entries_of(dict(model.target.named_parameters()), 1)}


def test_a_table_of_a_small_incubation(toy, capsys):
    names = [f'module_{i}' for i in range(4)]
    rows = measure(str(toy), Options(CPU, [*names, 'modules', 'finetune'], 4, True, 2), print)
    assert [(row['phase'], row['variant']) for row in rows if row['phase'] != 'modules'] == [
        (phase, variant) for phase in (*names, 'finetune') for variant in ('ours', 'reference')]
    for row in rows:
        assert row['n'] == len(row['samples']) == 2 and row['min'] <= row['median'] <= row['max']
        assert row['images'] == 4 and row['size'] == [16, 16] and row['data_wait_ms'] is None
    assert rows[0]['flops'] < rows[1]['flops'] and rows[0]['units'] < rows[1]['units']
    assert rows[-2]['peak_bytes'] > rows[2]['peak_bytes']
    found, [joint] = {r['phase']: r for r in ratios(rows)}, [row for row in rows if row['phase'] == 'modules']
    public, ours = ([sum(turn) for turn in zip(*(row['samples'] for row in rows[:8] if row['variant'] == variant),
                                               strict=True)] for variant in ('reference', 'ours'))
    assert found[' + '.join(names)]['max'] == max(a / b for a, b in zip(public, ours, strict=True))
    assert found['modules']['min'] == min(a / b for a, b in zip(public, joint['samples'], strict=True))
    assert set(found) == {*names, 'modules', 'finetune', ' + '.join(names)}
    some = [row for row in rows if row['phase'] != 'module_3']  # nothing to compare all modules with
    assert 'modules' not in {r['phase'] for r in ratios(some)}
    assert 'finetune reference' in capsys.readouterr().out


def test_turns_are_in_balanced_order(toy, monkeypatch):
    order = []

    def timed(step, device, calls):
        order.append(type(step).__name__)
        return 1.

    monkeypatch.setattr('mmincubation.benchmark.measure.seconds', timed)
    measure(str(toy), Options(CPU, ['meta'], 2, True, 4), lambda line: None)
    a, b = 'IncubationStep', 'PublicStep'
    assert order == [a, b, b, a, a, b, b, a]


def test_an_unknown_phase_is_named_before_anything_is_measured(toy, capsys):
    args = Namespace(device='cpu', configs=['configs/demo/vit_demo_e2e.py', str(toy)], phases=['module_9'], data=False,
                     batch_size=2, baseline=False, repeats=1, out=None)
    assert main(args) == 2
    names = ', '.join(Phases(load_config(toy)).names)
    assert capsys.readouterr().err == f'error: --phases module_9: {toy} has {names}\n'


def test_the_wait_for_real_jpegs(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, 'IMAGES', 4)
    monkeypatch.setattr(loading, 'NAMES', 8)
    loading.write_jpegs(tmp_path)
    assert len(list(tmp_path.glob('*/*.jpg'))) == 8 and 5e4 < next(tmp_path.glob('*/*.jpg')).stat().st_size < 2e5
    cfg = load_config('configs/imagenet/vit_b_incub.py')
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)
    batches = loading.batches(cfg, tmp_path, 2, 0)
    batch = next(batches)
    assert batch['inputs'].shape == (2, 3, 224, 224) and batch['inputs'].dtype == torch.uint8

    class Step:
        device, fed = CPU, 0

        def feed(self, batch):
            self.fed += 1

        def __call__(self):
            pass

    step = Step()
    assert loading.wait(step, batches, 6) > 1 and step.fed == 7  # more than an epoch


def products(step) -> dict:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_flop_counts()['Global']


@pytest.mark.parametrize('name', ['maskrcnn', 'upernet'])
def test_dense_steps_and_their_plain_form(name):
    cfg = load_config(f'configs/demo/{name}_vit_demo_e2e.py')
    cfg.model.backbone.bf16 = True
    batch, phases = synthetic(cfg, (96, 96), 2), Phases(cfg)
    ours = phases.ours(build(cfg, CPU), 'train', batch)
    other = phases.reference(build(plain(cfg), CPU), 'train', batch)
    assert cfg.model.backbone.bf16 and not other.model.backbone.bf16
    for step in (ours, other):
        losses = step()
        assert all(torch.isfinite(torch.as_tensor(value)) for value in losses.values()) and len(losses) > 3
        step()  # what the loader gave is not used up
    with attention_as_on_gpus():
        assert [torch.ops.aten.bmm in products(step) for step in (ours, other)] == [False, True]  # the scores' products
    assert ours.wrapper.optimizer.defaults['fused'] and not other.wrapper.optimizer.defaults['fused']


def test_the_peak_is_what_the_step_keeps_and_adds():
    class Step(torch.nn.Module):
        device, optimizers = CPU, ()

        def __init__(self):
            super().__init__()
            self.model = torch.nn.Linear(256, 1024, bias=False)

        def __call__(self):
            torch.empty(2**20).zero_(), torch.empty(2**19).zero_()

    assert memory.peak(Step()) == pytest.approx(2**20 + 4 * 2**20 + 2**21, abs=2**12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_a_gpu(cfg):
    """Its attention is counted like the CPU's, its peak is the step's own, and an incubation's is part of a whole."""
    device, peaks = torch.device('cuda'), {}
    cfg = deepcopy(cfg)
    cfg.optim_wrapper.type, cfg.optim_wrapper.optimizer.fused = 'mmincubation.AutocastOptimWrapper', True
    model, phases, batch = build(cfg, device), Phases(cfg), synthetic(cfg, (16, 16), 4)
    for name in ('module_1', 'modules', 'finetune'):
        step = phases.ours(model, name, batch)
        assert count_flops(step) == 4 * BlockFlops.of(Arch.parse(ARCH)).step(of_phase(Division(DEPTHS), name))
        peaks[name] = memory.peak(step)
    assert 0 < peaks['module_1'] < peaks['finetune']
    assert min(matrix_rates(device, torch.bfloat16, repeats=2, side=1024)) > 1e11


def test_a_gpu_that_is_not_there(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    assert main(Namespace(device='cuda')) == 2
    assert capsys.readouterr().err.startswith('error: --device cuda: torch sees no GPU')


def test_flops_and_rates():
    a = torch.randn(32, 64, requires_grad=True)
    assert count_flops(lambda: (a @ torch.ones(64, 16)).sum().backward()) == 2 * 2 * 32 * 64 * 16
    rates = matrix_rates(CPU, torch.float32, repeats=3, side=128)
    assert len(rates) == 3 and min(rates) > 1e8
    assert summary([3., 1., 2.]) == dict(n=3, median=2., min=1., max=3.)


def arguments(*words) -> Namespace:
    spec = importlib.util.spec_from_file_location('benchmark', ROOT / 'tools/benchmark.py')
    spec.loader.exec_module(tool := importlib.util.module_from_spec(spec))
    return tool.parse_args([*map(str, words), '--device', 'cpu', '--batch-size', '2', '--baseline'])


def test_the_tool_writes_what_it_prints(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(flops.SIDE, 'cpu', 128)
    assert main(arguments(toy, '--phases', 'meta', 'finetune', '--repeats', '2', '--out', tmp_path / 'b.json')) == 0
    result = valid_result(json.loads((tmp_path / 'b.json').read_text()))
    assert render(result) in capsys.readouterr().out and len(result['rows']) == 4 and len(result['ratios']) == 2
    result['rows'][0].pop('flops'), result['environment'].pop('commit')
    with pytest.raises(ValueError, match=r'environment.commit is missing; rows\[0\].flops is no int'):
        valid_result(result)


def one_rank(rank: int, port: int, toy: Path, folder: Path) -> None:
    """As torchrun starts it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                      MASTER_PORT=str(port))
    flops.SIDE['cpu'] = 128
    with contextlib.redirect_stdout(open(folder / f'{rank}.txt', 'w', buffering=1)):
        code = main(arguments(toy, '--phases', 'module_1', 'finetune', '--repeats', '1', '--out', folder / 'b.json'))
    os._exit(code)  # gloo's threads may abort an interpreter that shuts down


def test_two_ranks_measure_together(toy, tmp_path):
    port = free_port()
    ranks = [CONTEXT.Process(target=one_rank, args=(rank, port, toy, tmp_path)) for rank in range(2)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(LIMIT)
    assert [process.exitcode for process in ranks] == [0, 0]
    result = valid_result(json.loads((tmp_path / 'b.json').read_text()))
    assert result['environment']['ranks'] == 2 and [row['images'] for row in result['rows']] == [4] * 4
    assert (tmp_path / '0.txt').read_text().startswith(render(result)) and not (tmp_path / '1.txt').read_text()


def test_the_page_is_what_was_measured_and_computed():
    """Write it anew with `python -m mmincubation.benchmark.page`."""
    text = page.PAGE.read_text()
    assert page.rewritten(text, page.blocks()) == text
    with pytest.raises(KeyError, match='no block nothing'):
        page.rewritten(text, dict(nothing=''))


def test_the_size_of_a_dense_step_on_a_cpu():
    """Is divided once."""
    options = Options(CPU)
    cfg = load_config('configs/ade20k/upernet_vit_b_incub.py')
    assert batch_of(cfg, options) == (2, (192, 192)) and cfg.model.data_preprocessor.size == (192, 192)
