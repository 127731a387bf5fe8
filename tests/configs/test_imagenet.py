"""The configs of the paper's classification rows: complete, what their names say, and the same but for the method."""
import ast
import re

import pytest
import torch
from mmengine.config import Config
from torch.utils.flop_counter import FlopCounterMode

from mmincubation.config.runtime import size_problems
from mmincubation.datasets.samplers import RepeatAugSampler
from mmincubation.incubation import IncubationModel
from mmincubation.incubation.phases import read_phases
from mmincubation.models import Arch, VisionTransformer
from tests.configs.test_controls import block_forwards_of
from tests.helpers.paths import ROOT
from tests.helpers.toy import begin_phase

LEAVES = {path.stem: path for folder in ('imagenet', 'cifar100') for path in (ROOT / 'configs' / folder).glob('*.py')}
SIZES = dict(b='vit_base', l='vit_large', h='vit_huge')
# Top-1 of the paper: E2E, Deep Incubation.
PAPER = {
    'vit_b{}': (81.8, 82.4), 'vit_l{}': (81.4, 83.9), 'vit_h{}': (81.6, 84.3),
    'vit_b_384{}': (83.1, 84.2), 'vit_l_384{}': (83.3, 85.3), 'vit_h_392{}': (83.4, 85.6),
    'vit_b{}_50pct': (74.7, 78.6), 'vit_b{}_25pct': (65.7, 72.9),
    'vit_l{}_25_25': (None, 79.8), 'vit_l{}_50_50': (None, 82.7),
    'vit_h{}_25_25': (None, 80.5), 'vit_h{}_50_50': (None, 83.4),
    'deit_t_32{}': (72.8, 75.3), 'deit_t_128{}': (69.4, 77.2),
}
ROWS = {name.format(f'_{method}'): top for name, tops in PAPER.items()
        for method, top in zip(('e2e', 'incub'), tops, strict=True) if top is not None}
CONTROLS = [f'{row}_{method}' for row in ('vit_b', 'vit_l', 'vit_h', 'deit_t_32', 'deit_t_128')
            for method in ('incub_grow', 'grow_only', 'meta_only', 'stack_only')]
PAIRS = [name for name, tops in PAPER.items() if tops[0] is not None]
FINETUNE_DROP_PATH = dict(b=0.1, l=0.5, h=0.6, t=0.1)


def load(name: str) -> Config:
    return Config.fromfile(LEAVES[name])


def test_every_row_of_the_paper_has_a_config():
    assert set(LEAVES) == {*ROWS, *CONTROLS}


@pytest.mark.parametrize('name', sorted([*ROWS, *CONTROLS]))
def test_header_agrees_with_the_content(name):
    header, cfg = ast.get_docstring(ast.parse(LEAVES[name].read_text())), load(name)
    path = LEAVES[name].relative_to(ROOT).as_posix()
    fields = dict(re.findall(r'^([A-Z]\w+): +(.*)', header, re.MULTILINE))
    said = f'top-1 {ROWS[name]}*' if name in ROWS else re.sub('_(incub_grow|[a-z]+_only)$', '_incub', name)
    assert fields['Paper'].endswith(said) and fields['Result'] == 'not run' and fields['Cost']
    assert f'python tools/train.py {path}' in fields['Run']
    gpus = cfg.auto_scale_lr.base_batch_size // cfg.train_dataloader.batch_size
    nodes = f'NNODES={gpus // 8} MASTER_ADDR=HOST ' if gpus > 8 else ''
    assert gpus == 1 or f' {nodes}tools/dist_train.sh {path} {min(gpus, 8)}\n' in header


@pytest.mark.parametrize('name', sorted([*ROWS, *CONTROLS]))
def test_the_name_says_what_it_is(name):
    size, res, method, extra = re.fullmatch(
        r'(?:vit|deit)_(\w)(?:_(\d+))?_(e2e|incub_grow|incub|\w+_only)(?:_(\w+))?', name).groups()
    cfg = load(name)
    arch, data = Arch.parse(cfg.model.arch), cfg.train_dataloader.dataset
    fraction = {'50pct': 0.5, '25pct': 0.25}.get(extra, 1)
    assert data.get('fraction', 1) == fraction
    model = f'DeiT-T-{res}' if size == 't' else f'ViT-{size.upper()}' + (f'-{res}' if res else '')
    model += f'-{extra}' if fraction < 1 else ''
    images = 'CIFAR-100' if size == 't' else 'ImageNet-1K' + (f', {fraction:.0%}'.replace('%', ' %') * (fraction < 1))
    assert cfg.experiment == dict(task='classification', model=model, data=images,
                                  method=method + (f'_{extra}' if extra and fraction == 1 else ''))
    plain = method in ('e2e', 'meta_only') or 'init_cfg' in cfg.model
    assert cfg.model.type == f'mmincubation.{"ViTClassifier" if plain else "IncubationModel"}'
    assert ('init_cfg' in cfg.model) == (arch.img_size > 224)
    depth = {'depth': 4} if method == 'meta_only' else {'depth': int(res)} if size == 't' else {}
    if size == 't':
        depth = depth['depth']
        assert (arch.embed_dim, arch.num_heads, arch.patch_size, arch.img_size, arch.depth) == (192, 3, 4, 32, depth)
    else:
        assert arch == Arch.parse(dict(name=SIZES[size], img_size=int(res or 224), **depth))
    check_pipelines(cfg, arch)


def check_pipelines(cfg, arch: Arch) -> None:
    """Data, augmentation and model agree on size and number of classes."""
    assert cfg.model.data_preprocessor.mixup.num_classes == arch.num_classes
    assert cfg.val_dataloader == cfg.test_dataloader and cfg.val_evaluator.topk == (1, 5)
    train, val = (loader.dataset.get('pipeline', []) for loader in (cfg.train_dataloader, cfg.val_dataloader))
    if arch.img_size == 32:
        assert train[0].size == 32 and not val
    else:
        assert train[0].input_size == val[0].input_size == arch.img_size and val[0].crop_pct == 0.875
    assert cfg.train_dataloader.drop_last and cfg.train_dataloader.batch_size % 2 == 0


@pytest.mark.parametrize('name', PAIRS)
def test_e2e_and_incub_differ_in_the_method_alone(name):
    cfgs, inits = [load(name.format(f'_{method}')) for method in ('e2e', 'incub')], []
    for cfg, method in zip(cfgs, ('e2e', 'incub'), strict=True):
        assert cfg.experiment.pop('method') == method
        if init := cfg.model.get('init_cfg'):
            inits.append(init.checkpoint)
            del init['checkpoint']
        else:  # the incubation sets these per phase
            cfg.model.pop('drop_path_rate', None), cfg.model.pop('modules', None), cfg.model.pop('type')
            cfg.pop('train_cfg')
    assert cfgs[0].to_dict() == cfgs[1].to_dict()
    if inits:
        size = name.split('_')[1]
        assert inits == [f'work_dirs/vit_{size}_e2e/weights/e2e_last.safetensors',
                         f'work_dirs/vit_{size}_incub/weights/finetune_last.safetensors']
        assert {f'vit_{size}_e2e', f'vit_{size}_incub'} <= set(LEAVES)


def test_data_at_384_and_392_is_that_at_224():
    """But for the size of the crops and the images on each GPU."""
    keys = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'default_hooks', 'custom_hooks')
    seen = []
    for name in ('vit_l_e2e', 'vit_l_384_e2e', 'vit_h_392_e2e'):
        cfg = load(name)
        for key in keys[:3]:
            cfg[key].pop('batch_size'), cfg[key].dataset.pipeline[0].pop('input_size')
        seen.append([cfg.model.data_preprocessor.to_dict(), *(cfg[key] for key in keys)])
    assert seen[0] == seen[1] == seen[2]


@pytest.mark.parametrize('name', [name for name in sorted(ROWS) if 'incub' in name and not re.search('_3[89]', name)])
def test_phases_are_the_papers(name):
    cfg = load(name)
    short = re.search(r'_(25|50)_', name)
    epochs = int(short[1]) if short else 100
    phases = read_phases(cfg.train_cfg.phases, 4)
    size = name.split('_')[1]
    assert [(p.epochs, p.drop_path_rate) for p in phases] == \
        [(300, 0.)] + 4 * [(epochs, 0.1)] + [(epochs, FINETUNE_DROP_PATH[size])]
    assert [p.optim_cfg(cfg.optim_wrapper).get('clip_grad') for p in phases] == 5 * [None] + [dict(max_norm=1.0)]
    assert cfg.model.modules == 4 and cfg.train_cfg.get('recipe', 'clean') == 'clean'
    assert cfg.train_cfg.get('start', 'random') == 'random'  # the paper's


@pytest.mark.parametrize('name, epochs', [('vit_b_e2e', 300), ('vit_l_e2e', 300), ('vit_h_e2e', 300),
                                          ('deit_t_128_e2e', 300), ('vit_h_392_incub', 30)])
def test_epochs_without_phases(name, epochs):
    assert load(name).train_cfg.max_epochs == epochs


@pytest.mark.parametrize('name', ['vit_b_incub', 'vit_l_incub', 'vit_h_incub'])
def test_stochastic_depth_of_every_block(name):
    """In incubation the target's ramp over its own depth, no drop in the meta model; in fine-tuning the leaf's rate."""
    cfg = load(name)
    with torch.device('meta'):
        model = IncubationModel(cfg.model.arch, cfg.model.modules)
    depth = model.division.depth
    for phase in read_phases(cfg.train_cfg.phases, 4):
        begin_phase(model, phase.name, phase.drop_path_rate)
        rate = phase.drop_path_rate
        ramp = [rate * i / (depth - 1) for i in range(depth)]
        rates = [getattr(block.drop_path2, 'drop_prob', 0.) for block in model.target.blocks]
        if phase.module is not None:
            span = model.division.span(phase.module)
            assert [rates[i] for i in span] == pytest.approx([ramp[i] for i in span])
        if phase.name == 'finetune':
            assert rates == pytest.approx(ramp)
        if phase.name != 'finetune':
            assert not any(getattr(block.drop_path2, 'drop_prob', 0.) for block in model.meta.blocks)


@pytest.mark.parametrize('name, gflops, millions', [
    ('vit_b_e2e', 17.6, 87), ('vit_l_e2e', 61.6, 304), ('vit_h_e2e', 167.4, 632),
    ('vit_b_384_e2e', 55.5, 87), ('vit_l_384_e2e', 191.1, 304), ('vit_h_392_e2e', 545.3, 632)])
def test_flops_and_parameters_are_the_papers(name, gflops, millions):
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as counter:
        vit = VisionTransformer(load(name).model.arch).eval()
        vit(torch.empty(1, 3, vit.arch.img_size, vit.arch.img_size))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gflops, rel=0.01)  # it counts 2 for a multiply-add
    assert sum(p.numel() for p in vit.parameters()) / 1e6 == pytest.approx(millions, rel=0.01)


class Images:
    """ImageNet's number of training images."""

    def __len__(self):
        return 1281167


@pytest.mark.parametrize('gpus, batch, iterations', [(8, 256, 625), (32, 64, 625), (8, 64, 2502), (16, 32, 2502)])
def test_iterations_of_an_imagenet_epoch(monkeypatch, gpus, batch, iterations):
    monkeypatch.setattr('mmincubation.datasets.samplers.get_dist_info', lambda: (0, gpus))
    assert len(RepeatAugSampler(Images(), seed=0)) // batch == iterations


def hours_of_controls(rows: dict[str, tuple[float, float]]) -> dict[str, float]:
    """From those of (E2E, incub): `incub_grow` costs what `incub` does, the others E2E's hours a block-forward."""
    hours = {}
    for row, (e2e, incub) in rows.items():
        each = e2e / block_forwards_of(load(f'{row}_e2e'))
        hours |= {f'{row}_{method}': each * block_forwards_of(load(f'{row}_{method}'))
                  for method in ('grow_only', 'meta_only', 'stack_only')} | {f'{row}_incub_grow': incub}
    return hours


def test_hours_that_the_paper_does_not_state_are_estimated_as_the_docs_say():
    """From the hours of ViT-L, ViT-H (E2E, 300 epochs at 224) and DeiT-T-128, by FLOPs and block-forwards."""
    flops, large, huge = dict(b=17.56, l=61.55, h=167.30), 1090, 4790
    base = large * flops['b'] / flops['l']
    half = {'': 1, '_50pct': 1 / 2, '_25pct': 1 / 4}
    hours = {f'vit_b_e2e{part}': base * share for part, share in half.items()}
    hours |= {f'vit_b_incub{part}': base * 4800 / 3600 * 890 / large * share for part, share in half.items()}
    for size, at, more, whole, rate in (('b', 384, 55.48, 'l', large), ('l', 384, 191.07, 'l', large),
                                        ('h', 392, 544.95, 'h', huge)):
        hours |= {f'vit_{size}_{at}_{way}': 30 / 300 * more / flops[whole] * rate for way in ('e2e', 'incub')}
    hours |= dict(deit_t_32_e2e=7.2 * 9600 / 38400, deit_t_32_incub=6.0 * 8800 / 28000)
    hours |= hours_of_controls(dict(vit_b=(base, hours['vit_b_incub']), vit_l=(large, 890), vit_h=(huge, 2720),
                                    deit_t_32=(1.8, hours['deit_t_32_incub']), deit_t_128=(7.2, 6.0)))
    stated = {}
    for name in LEAVES:
        if found := re.search(r'^Cost: +about ([\d.,]+) \w+', LEAVES[name].read_text(), re.MULTILINE):
            stated[name] = float(found[1].replace(',', ''))
    assert stated == pytest.approx(hours, rel=0.03)


@pytest.mark.parametrize('key', ['train_dataloader', 'val_dataloader', 'test_dataloader'])
def test_another_size_of_images_than_the_models_is_refused(key):
    cfg, mode = load('vit_b_384_incub'), 'test' if key.startswith('test') else 'train'
    assert not [*size_problems(cfg, mode)]
    [step] = [step for step in cfg[key].dataset.pipeline if step.type.endswith('.create_transform')]
    step.input_size = (3, 224, 224)
    [line] = size_problems(cfg, mode)
    assert line.startswith(f'{key}.dataset.pipeline') and 'is (3, 224, 224), model.arch.img_size is 384' in line
