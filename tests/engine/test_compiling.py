"""`compile` in a config: blocks are compiled once, for all phases, and nothing else about a run changes."""
import shutil

import pytest
import timm.layers
import torch
from mmengine.config import Config
from torch._dynamo.utils import counters

from mmincubation.compat.safe_globals import allow_mm_checkpoints
from mmincubation.config.runtime import compile_problems, runtime_problems
from mmincubation.downstream import ViTBackbone
from mmincubation.engine.compiling import compile_blocks
from mmincubation.engine.runner import ToolRunner
from mmincubation.errors import ConfigError
from mmincubation.models import VisionTransformer
from tests.helpers.forked import trained
from tests.helpers.resumed import assert_same_run, killed_and_resumed, newest
from tests.helpers.toy import e2e_config, incubation_config

ARCH = dict(embed_dim=32, depth=12, num_heads=2, patch_size=8, img_size=32, num_classes=5)


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()
    torch.compiler.set_stance('default')


def pictures() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def step(model, bf16: bool = False) -> dict:
    """Output and gradients of a training step; each draws the same."""
    torch.manual_seed(7)
    model.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=bf16):
        output = model(pictures())
    output = output[-1] if isinstance(output, tuple) else output
    output.square().sum().backward()
    return dict(output=output.detach()) | {name: p.grad.clone() for name, p in model.named_parameters()}


def classifier(**arguments) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer(ARCH, drop_path_rate=0.4, **arguments).train()


def with_timms() -> VisionTransformer:
    """The same with timm's own stochastic depth."""
    model = classifier()
    for block in model.blocks[1:]:
        for name in ('drop_path1', 'drop_path2'):
            setattr(block, name, timm.layers.DropPath(getattr(block, name).drop_prob))
    return model.train()


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(a[key].equal(b[key]) for key in a)


# --- blocks

@pytest.mark.parametrize('bf16', [False, True])
def test_the_draws_are_timms(bf16):
    assert same(step(with_timms(), bf16), step(classifier(), bf16))


@pytest.mark.parametrize('bf16', [False, True])
@pytest.mark.parametrize('with_cp', [False, True])
def test_twelve_rates_are_two_graphs(bf16, with_cp):
    """The first block has no stochastic depth."""
    expected, model = step(classifier(), bf16), classifier(with_cp=with_cp)
    names = list(model.state_dict())
    compile_blocks(model, dict(backend='aot_eager'))
    for _ in range(2):
        assert same(step(model, bf16), expected)
    assert counters['frames'] == dict(total=2, ok=2) and list(model.state_dict()) == names


def test_with_timms_stochastic_depth_torch_gives_up():
    model = with_timms()
    compile_blocks(model, dict(backend='eager'))
    with torch._dynamo.config.patch(recompile_limit=8):  # torch's own, which something in this process may have raised
        step(model)
    assert counters['frames']['ok'] < counters['frames']['total']


@pytest.mark.skipif(not shutil.which('g++'), reason='no g++: inductor has no compiler for the CPU')
def test_inductors_blocks_compute_the_same():
    arch = dict(ARCH, depth=1)
    models = [VisionTransformer(arch).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    compile_blocks(models[1], True)
    expected, found = map(step, models)
    assert counters['frames'] == dict(total=1, ok=1) and not same(found, expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize('with_cp', [False, True])
def test_a_backbone_with_windows(with_cp):
    """Global, windowed, each with stochastic depth, and the first block without; and one windowed at the end."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(ViTBackbone(dict(ARCH, depth=6), (5, ), window_size=3, global_blocks=(1, 3), drop_path_rate=0.4,
                                  with_cp=with_cp).train())
    compile_blocks(models[1], dict(backend='aot_eager'))
    expected = step(models[0])
    for _ in range(2):
        assert same(step(models[1]), expected)
    assert counters['frames'] == dict(total=3, ok=3)
    assert models[1].state_dict().keys() == models[0].state_dict().keys()


# --- runs

def compiled(cfg, backend: str = 'aot_eager'):
    cfg.compile = dict(backend=backend)
    cfg.experiment_name = cfg.work_dir
    return cfg


def test_an_incubation_compiles_each_kind_of_block_once(images, tmp_path):
    """Trained, with stochastic depth and without, and with it behind frozen ones; frozen, before and behind these."""
    allow_mm_checkpoints()
    changes = dict(epochs=(2, 2, 2), drop_path_rate=0.3)
    runs = [incubation_config(images, tmp_path / name, **changes) for name in ('plain', 'compiled')]
    for cfg in (runs[0], compiled(runs[1])):
        cfg.experiment_name = cfg.work_dir
        ToolRunner.from_cfg(cfg).train()
    assert counters['frames'] == dict(total=5, ok=5), counters['recompiles']
    ours, theirs = newest(tmp_path / 'compiled'), newest(tmp_path / 'plain')
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours if key.startswith('/state_dict'))


def test_a_killed_run_ends_as_one_that_was_not(images, tmp_path):
    cfg = compiled(e2e_config(images, tmp_path / 'whole', drop_path_rate=0.3), 'eager')
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.dump(tmp_path / 'toy.py')
    assert trained(tmp_path / 'toy.py', tmp_path / 'whole')
    killed_and_resumed(tmp_path / 'toy.py', tmp_path / 'killed', [dict(kill_at='os.replace:2')])
    assert_same_run(tmp_path / 'killed', tmp_path / 'whole')


# --- configs

@pytest.mark.parametrize('given, said', [
    (dict(backnd='eager'), 'compile.backnd: torch.compile has no such option; it takes backend, '),
    ('yes', "compile='yes': give True, False or a dict"), (dict(model=1), 'compile.model: ')])
def test_unknown_options_are_named(images, tmp_path, given, said):
    cfg = e2e_config(images, tmp_path)
    cfg.compile = given
    (line, ) = runtime_problems(cfg, 'train', gpu=False)
    assert said in line
    assert not list(runtime_problems(cfg, 'test', gpu=False))


@pytest.mark.parametrize('given', [True, False, None, dict(mode='max-autotune', fullgraph=True)])
def test_known_options_are_taken(given):
    assert not list(compile_problems(Config(dict(compile=given))))


@pytest.mark.parametrize('given, said', [(dict(backend='inducto'), 'compile: .*inducto'),
                                         (dict(options=dict(max_autotun=True)), 'compile: .*max_autotun')])
def test_what_torch_refuses_ends_before_the_first_step(images, tmp_path, given, said):
    cfg = compiled(e2e_config(images, tmp_path))
    cfg.compile = given
    with pytest.raises(ConfigError, match=said):
        ToolRunner.from_cfg(cfg).train()


def test_a_model_without_a_vit_is_refused(images, tmp_path):
    cfg = compiled(e2e_config(images, tmp_path))
    runner = ToolRunner.from_cfg(cfg)
    runner.model = torch.nn.Linear(1, 1)
    with pytest.raises(ConfigError, match='no part of this Linear is a ViT'):
        runner._maybe_compile('train_step')


def test_no_compiler_is_named(monkeypatch):
    monkeypatch.setenv('CXX', 'no-such-compiler')
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    with pytest.raises(ConfigError, match='install g.*compile.backend=aot_eager'):
        compile_blocks(classifier(), True)
