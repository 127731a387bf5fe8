"""Every config in the repository: it resolves, and its name, its header and its content say the same."""
import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config

from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.models import Arch, Division
from mmincubation.suite.runs import read_suite
from tests.helpers.paths import ROOT

STEPS = read_suite(ROOT / 'suites/demo.py').runs
LEAVES = sorted(p for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
NAME = re.compile(r'((?P<head>maskrcnn|upernet|linear)_)?(?P<model>vit|deit)_(?P<size>demo|b|l|h|t_32|t_128)'
                  r'(_(?P<side>384|392))?(_(?P<method>incub_grow|incub|e2e|scratch|(grow|meta|stack)_only))?(_(?P<more>\w+))?')
ARCHS = dict(b='vit_base', l='vit_large', h='vit_huge')
FINETUNED = ('incub', 'incub_grow', 'grow_only', 'stack_only')  # methods whose last phase is fine-tuning
EVERY = pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)


def load(path) -> Config:
    return Config.fromfile(path)


def header(path) -> str:
    return ast.get_docstring(ast.parse(path.read_text()))


def name(path) -> dict:
    found = NAME.fullmatch(path.stem)
    assert found, f'{path.stem} is not named as the others are'
    return found.groupdict()


def arch_of(cfg) -> Arch:
    model = cfg.model
    return Arch.parse(model.arch if 'arch' in model else model.backbone.arch)


def weights_of(cfg) -> str | None:
    init = (cfg.model.get('backbone') or cfg.model).get('init_cfg')
    return init and init.checkpoint


def test_there_are_configs_of_every_kind():
    folders = {p.parent.name for p in LEAVES}
    assert folders == {'demo', 'imagenet', 'cifar100', 'coco', 'ade20k'}


@EVERY
def test_resolves_with_no_unknown_key(path, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    cfg = load_config(path.relative_to(ROOT))
    # Data and weights are not here; a wrong key would be another line.
    assert not [line for line in problems(cfg, 'train') if 'does not exist' not in line]


@EVERY
def test_mm_packages_find_the_test_pipeline(path):
    cfg = load(path)
    dense = 'backbone' in cfg.model
    assert cfg.get('test_pipeline') == (cfg.test_dataloader.dataset.pipeline if dense else None)


def bases(file: Path) -> list[Path]:
    """The files that a config names as its `_base_`."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            named = ast.literal_eval(node.value)
            return [(file.parent / base).resolve() for base in ([named] if isinstance(named, str) else named)]
    return []


def files(file: Path) -> set[Path]:
    """All that one must read to know a run."""
    return {file}.union(*map(files, bases(file)))


KINDS = ('Model: ', 'Data and schedule: ', 'Schedule ', 'Runtime ')


@EVERY
def test_a_run_is_at_most_four_short_files(path):
    assert len(files(path)) <= 4
    assert len(path.read_text().splitlines()) <= 25


def test_bases_are_few_flat_and_of_one_kind():
    """Only the runtime is a base of bases, since every task adds its own hooks to it."""
    found = set((ROOT / 'configs/_base_').rglob('*.py'))
    assert len(found) <= 16 and found == set().union(*map(files, LEAVES)) - set(LEAVES)
    for file in found:
        assert header(file).startswith(KINDS), file
        assert bases(file) in ([], [ROOT / 'configs/_base_/runtime.py']), file
        settings = {n.targets[0].id for n in ast.parse(file.read_text()).body if isinstance(n, ast.Assign)}
        settings = {name for name in settings if not name.startswith('_')}
        if header(file).startswith('Model: '):
            assert settings == {'model'}, file
        if header(file).startswith('Schedule '):
            assert settings == {'train_cfg'}, file


@EVERY
def test_name_and_header_say_what_it_is(path):
    said, cfg, text = name(path), load(path), header(path)
    assert f'python tools/train.py {path.relative_to(ROOT)}' in text
    task = {'maskrcnn': 'detection', None: 'classification'}.get(said['head'], 'segmentation')
    assert cfg.experiment.task == task
    more = said['more'] or ''
    assert said['method'] is None or cfg.experiment.method in (said['method'], f'{said["method"]}_{more}')
    folder = dict(detection='coco', segmentation='ade20k', classification='imagenet')[task]
    assert path.parent.name in (folder, 'demo', 'cifar100')
    for field in ('Paper', 'Run', 'Batch', 'Cost', 'Result'):
        assert re.search(rf'^{field}: +\S', text, re.MULTILINE), f'the header has no {field}'
    if path.parent.name == 'demo':
        assert f'about {STEPS[path.stem].seconds} s on one CPU core' in text
    else:
        # What is not comparable is another model in the tables.
        parts = [dict(vit='ViT', deit='DeiT')[said['model']], said['size'].upper(), said['side'],
                 'linear' * (said['head'] == 'linear'), more]
        if said['model'] == 'deit' and task == 'detection' or cfg.experiment.method.endswith(f'_{more}'):
            parts.pop()
        assert cfg.experiment.model == '-'.join(filter(None, parts)).replace('_', '-')


@EVERY
def test_size_and_resolution_are_the_names(path):
    said, arch = name(path), arch_of(load(path))
    depth = dict(demo=24, t_32=32, t_128=128).get(said['size']) or Arch.parse(ARCHS[said['size']]).depth
    assert arch.depth == (4 if said['method'] == 'meta_only' else depth)
    if said['size'].startswith('t_'):
        assert (arch.embed_dim, arch.num_heads, arch.patch_size, arch.img_size) == (192, 3, 4, 32)
    elif said['size'] != 'demo':
        expected = Arch.parse(ARCHS[said['size']])
        for field in ('embed_dim', 'num_heads', 'qkv_bias', 'norm_eps'):
            assert getattr(arch, field) == getattr(expected, field), field
        assert arch.patch_size == (16 if said['head'] else expected.patch_size)  # dense maps have stride 16
        assert said['head'] or arch.img_size == int(said['side'] or 224)


@EVERY
def test_weights_are_those_of_the_name(path):
    said, cfg = name(path), load(path)
    weights = weights_of(cfg)
    if said['model'] == 'deit' and said['head']:
        assert 'deit_base' in weights
    elif said['head'] and said['method'] != 'scratch' or said['side']:
        run = f'vit_{said["size"]}_{said["method"]}'
        last = 'finetune' if said['method'] in FINETUNED else 'e2e'
        assert weights == f'work_dirs/{run}/weights/{last}_last.safetensors'
        assert (ROOT / 'configs' / ('demo' if said['size'] == 'demo' else 'imagenet') / f'{run}.py').is_file()
    else:
        assert weights is None


@EVERY
def test_incubations_are_divided_at_the_taps_and_global_blocks(path):
    cfg = load(path)
    depth = arch_of(cfg).depth
    ends = tuple(Division.of(depth, 4).span(i)[-1] for i in range(4))
    if cfg.model.get('backbone') is None:
        assert cfg.model.get('modules', 4) == 4
        assert ('modules' in cfg.model) == (cfg.model.type == 'mmincubation.IncubationModel')
    elif cfg.experiment.task == 'detection':
        assert (tuple(cfg.model.backbone.out_indices), tuple(cfg.model.backbone.global_blocks)) == (ends[-1:], ends)
    else:
        taps = ends[-1:] if name(path)['head'] == 'linear' else ends
        assert tuple(cfg.model.backbone.out_indices) == taps and not cfg.model.backbone.get('window_size')


def phases_of(cfg) -> tuple:
    phases = cfg.train_cfg.phases
    return phases.meta.epochs, phases.module.epochs, phases.finetune.epochs


@EVERY
def test_length_and_data_are_the_names(path):
    said, cfg = name(path), load(path)
    more, loop = said['more'], cfg.train_cfg
    if said['size'] == 'demo':
        assert more is None
    elif said['head'] == 'maskrcnn':
        epochs = 36 if more == '3x' else 12
        assert loop.max_epochs == epochs and (more in (None, '3x', 'strong_head'))
        steps = next(s for s in cfg.param_scheduler if s.type == 'MultiStepLR')
        assert [round(m / epochs, 2) for m in steps.milestones] == ([.75, .92] if more == '3x' else [.67, .92])
    elif said['head']:
        iterations = dict(upernet=80_000, linear=40_000)[said['head']]
        assert (loop.max_iters, more) == (iterations, None) and cfg.param_scheduler[-1].end == iterations
    elif said['side']:
        assert loop.max_epochs == 30 and more is None
    else:
        fraction = dict({'50pct': .5, '25pct': .25}).get(more, 1.)
        assert cfg.train_dataloader.dataset.get('fraction', 1.) == fraction
        if said['method'] == 'e2e':
            assert loop.max_epochs == 300
        elif said['method'].startswith('incub'):
            short = dict({'25_25': (300, 25, 25), '50_50': (300, 50, 50)}).get(more, (300, 100, 100))
            assert phases_of(cfg) == short
        else:
            assert more is None  # tests/configs/test_controls.py has the lengths of the controls


# The recipes of docs/tasks/coco.md and ade20k.md: learning rate, weight decay, layer decay, drop path, global batch.
RECIPES = dict(
    maskrcnn=dict(b=(1e-4, .05, .95, .1, 16), l=(1e-4, .05, .95, .4, 16), h=(1e-4, .05, .95, .5, 16)),
    upernet=dict(b=(6e-5, .01, .95, .1, 16), l=(4e-5, .05, .95, .4, 16), h=(4e-5, .05, .95, .4, 16)),
    linear=dict(b=(1e-3, 1e-4, .95, 0, 16)))


@pytest.mark.parametrize('path', [p for p in LEAVES if p.parent.name in ('coco', 'ade20k')], ids=lambda p: p.stem)
def test_downstream_recipes(path):
    said, cfg = name(path), load(path)
    optimizer = cfg.optim_wrapper.optimizer
    assert RECIPES[said['head']][said['size']] == (
        optimizer.lr, optimizer.weight_decay, cfg.optim_wrapper.paramwise_cfg.layer_decay,
        cfg.model.backbone.get('drop_path_rate', 0), cfg.auto_scale_lr.base_batch_size)
    assert optimizer.type == 'AdamW' and tuple(optimizer.betas) == (0.9, 0.999) and 'clip_grad' not in cfg.optim_wrapper


# The paper's figures (arXiv 2212.04129), as they must stand in the headers.
REFERENCE = dict(
    vit_b_e2e='81.8', vit_b_incub='82.4', vit_b_384_e2e='83.1', vit_b_384_incub='84.2', vit_l_e2e='81.4',
    vit_l_incub='83.9', vit_l_384_e2e='83.3', vit_l_384_incub='85.3', vit_h_e2e='81.6', vit_h_incub='84.3',
    vit_h_392_e2e='83.4', vit_h_392_incub='85.6', vit_l_incub_50_50='82.7', vit_l_incub_25_25='79.8',
    vit_h_incub_50_50='83.4', vit_h_incub_25_25='80.5', vit_b_e2e_50pct='74.7', vit_b_e2e_25pct='65.7',
    vit_b_incub_50pct='78.6', vit_b_incub_25pct='72.9', deit_t_32_e2e='72.8', deit_t_32_incub='75.3',
    deit_t_128_e2e='69.4', deit_t_128_incub='77.2', upernet_vit_l_e2e='58.5 / 47.0 / 47.8',
    upernet_vit_l_incub='60.8 / 49.2 / 50.0', upernet_vit_h_e2e='58.2 / 46.5 / 47.2',
    upernet_vit_h_incub='61.0 / 49.9 / 50.6')
REFERENCE |= {f'maskrcnn_vit_{size}_{row}': figures for size in 'blh' for row, figures in {
    'e2e': '44.1/67.7/48.5 40.4/64.2/43.1', 'incub': '45.7/69.6/50.3 41.8/66.1/44.7',
    'e2e_3x': '47.0/69.3/51.3 42.1/66.2/45.2', 'incub_3x': '48.6/71.2/52.9 43.8/68.1/47.2'}.items()}


@pytest.mark.parametrize('stem', REFERENCE)
def test_every_row_of_the_paper_is_quoted_by_its_config(stem):
    path, = (p for p in LEAVES if p.stem == stem)
    text = header(path).replace('*', '')
    assert '*' in header(path) and 'Paper:' in text
    assert all(figures in text for figures in (REFERENCE[stem].split() if 'maskrcnn' in stem else [REFERENCE[stem]]))


def partner(path) -> Path:
    """The config of the E2E control."""
    return path.with_name(re.sub('_incub(_grow)?', '_e2e', path.name))


PAIRS = [p for p in LEAVES if name(p)['method'] in ('incub', 'incub_grow') and partner(p).is_file()]


@pytest.mark.parametrize('path', PAIRS, ids=lambda p: p.stem)
def test_incub_and_e2e_differ_in_the_weights_alone(path):
    ours, theirs = load(path).to_dict(), load(partner(path)).to_dict()
    ours['experiment'].pop('method'), theirs['experiment'].pop('method')
    if weights_of(load(path)):
        for cfg in (ours, theirs):
            (cfg['model'].get('backbone') or cfg['model']).pop('init_cfg')
        assert ours == theirs
        return
    # Trained from nothing, they differ in model and loop, which is what is compared; not in data, batch or rate.
    differ = {k for k in ours.keys() | theirs.keys() if ours.get(k) != theirs.get(k)}
    assert differ <= {'model', 'train_cfg', 'param_scheduler'}
    assert {k: v for k, v in ours['model'].items() if k not in ('type', 'modules')} == \
        {k: v for k, v in theirs['model'].items() if k not in ('type', 'drop_path_rate')}


def test_every_downstream_incub_has_its_control():
    assert len([p for p in PAIRS if name(p)['head']]) == 3 * 3 + 3  # b, l, h x (1x, 3x, ADE20K), linear, two demos


def hours(stem: str) -> int:
    """A100 hours of one training, from its header."""
    path, = (p for p in LEAVES if p.stem == stem)
    return int(re.search(r'^Cost: +about (\d+) A100 hours', header(path), re.MULTILINE)[1])


def test_costs_of_the_18_trainings_are_the_headers():
    text = (ROOT / 'docs/tasks/trainings.md').read_text()
    total = 0
    for row, ending in (('Mask R-CNN 1x', ''), ('Mask R-CNN 3x', '_3x'), ('UperNet 80k', '')):
        head = 'upernet' if row.startswith('Uper') else 'maskrcnn'
        cells = [[hours(f'{head}_vit_{size}_{method}{ending}') for method in ('incub', 'e2e')] for size in 'blh']
        assert all(a == b for a, b in cells)
        assert re.search(re.escape(f'| {row}') + '.*' + re.escape(' | '.join(f'2 x {a}' for a, _ in cells)), text), row
        total += sum(map(sum, cells))
    assert f'Together {total:,} hours: about {total / 8 / 24:.0f} days on 8 GPUs' in text
