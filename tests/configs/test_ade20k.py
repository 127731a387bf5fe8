"""The ADE20K configs: the recipe's values, mmseg's stock parts, names and headers; models are built without memory."""
import ast
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmincubation.models import Arch, Division
from tests.helpers.paths import ROOT

LEAVES = sorted((ROOT / 'configs/ade20k').glob('upernet_*.py'))
PAIRS = [(size, method) for size in 'blh' for method in ('incub', 'e2e')]
RECIPE = dict(  # lr, weight decay, drop path, taps, parameters of the backbone in millions
    b=(6e-5, 0.01, 0.1, (2, 5, 8, 11), 86), l=(4e-5, 0.05, 0.4, (5, 11, 17, 23), 303),
    h=(4e-5, 0.05, 0.4, (7, 15, 23, 31), 631))
PAPER = dict(  # mAcc / mIoU / multi-scale mIoU
    l=dict(e2e='58.5 / 47.0 / 47.8', incub='60.8 / 49.2 / 50.0'),
    h=dict(e2e='58.2 / 46.5 / 47.2', incub='61.0 / 49.9 / 50.6'))


def load(size: str, method: str = 'incub') -> Config:
    return Config.fromfile(ROOT / f'configs/ade20k/upernet_vit_{size}_{method}.py')


def build(cfg):
    """On the meta device: shapes without numbers."""
    with DefaultScope.overwrite_default_scope('mmseg'), torch.device('meta'):
        return MODELS.build(cfg)


@pytest.fixture(scope='module')
def stock():
    """mmseg's own UperNet and ADE20K configs, as its wheel ships them."""
    import mmseg
    folder = Path(mmseg.__file__).parent / '.mim/configs/_base_'
    return Config.fromfile(folder / 'models/upernet_r50.py'), Config.fromfile(folder / 'datasets/ade20k.py')


def differences(ours, theirs, place='') -> dict:
    """{dotted place: (ours, theirs)} wherever two configs differ; None where one lacks the key."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        found = [differences(ours.get(k), theirs.get(k), f'{place}.{k}'.strip('.')) for k in {*ours, *theirs}]
        return {k: v for part in found for k, v in part.items()}
    return {} if ours == theirs else {place: (ours, theirs)}


def test_there_is_a_config_for_every_row():
    assert [p.stem for p in LEAVES] == sorted(f'upernet_vit_{size}_{method}' for size, method in PAIRS)


@pytest.mark.parametrize('size, method', PAIRS)
def test_header_agrees_with_the_content(size, method):
    path = ROOT / f'configs/ade20k/upernet_vit_{size}_{method}.py'
    header, cfg = ast.get_docstring(ast.parse(path.read_text())), load(size, method)
    assert cfg.experiment == dict(task='segmentation', model=f'ViT-{size.upper()}', method=method, data='ADE20K')
    weights = dict(incub='finetune_last', e2e='e2e_last')[method]
    assert cfg.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=f'work_dirs/vit_{size}_{method}/weights/{weights}.safetensors')
    assert f'tools/dist_train.sh configs/ade20k/{path.name} 8' in header
    assert f'work_dirs/{path.stem}/iter_{cfg.train_cfg.max_iters}.pth 8\n' in header
    assert f'8 GPUs x {cfg.train_dataloader.batch_size};' in header
    assert f'vit_{size}_{method}' in header and 'Result:   not run' in header
    assert f'{PAPER[size][method]}*' in header if size in PAPER else 'no row, this one is ours' in header


def test_sizes_differ_where_the_recipe_says():
    base = load('l').to_dict()
    for size in 'bh':
        keys = {k.rpartition('.')[0] if k.endswith('arch') else k for k in differences(load(size).to_dict(), base)}
        assert keys <= {
            'experiment.model', 'model.backbone', 'model.backbone.out_indices', 'model.backbone.init_cfg.checkpoint',
            'model.backbone.drop_path_rate', 'model.neck.embed_dim', 'model.decode_head.in_channels',
            'model.auxiliary_head.in_channels', 'optim_wrapper.optimizer.lr', 'optim_wrapper.optimizer.weight_decay'}


@pytest.mark.parametrize('size', 'blh')
def test_recipe(size):
    cfg, (lr, decay, drop_path, taps, _) = load(size), RECIPE[size]
    assert cfg.optim_wrapper == dict(
        type='mmincubation.AutocastOptimWrapper', constructor='mmincubation.ViTOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay=0.95),
        optimizer=dict(type='AdamW', lr=lr, weight_decay=decay, betas=(0.9, 0.999), fused=True))
    assert 8 * cfg.train_dataloader.batch_size == cfg.auto_scale_lr.base_batch_size == 16
    assert cfg.train_cfg == dict(type='IterBasedTrainLoop', max_iters=80000, val_interval=8000)
    backbone = cfg.model.backbone
    assert (backbone.window_size, backbone.cls_token, backbone.tap_norm, backbone.bf16) == (0, True, True, True)
    assert backbone.drop_path_rate == drop_path and backbone.out_indices == taps
    assert cfg.model.test_cfg == dict(mode='slide', crop_size=(512, 512), stride=(341, 341))
    assert cfg.model.data_preprocessor.test_cfg == dict(size_divisor=32)
    assert cfg.default_hooks.checkpoint == dict(
        type='mmincubation.CheckpointHook', by_epoch=False, interval=8000, max_keep_ckpts=1, save_best='mIoU')


def test_taps_are_the_modules_outputs():
    for size in 'blh':
        backbone = load(size).model.backbone
        division = Division.of(Arch.parse(backbone.arch).depth, 4)
        assert list(backbone.out_indices) == [division.span(module)[-1] for module in range(4)]


def test_vit_h_keeps_the_grid_of_its_file():
    """224 / 14 = 256 / 16: no resizing at load beside the patch kernel's."""
    here, there = Arch.parse(load('h').model.backbone.arch), Arch.parse('vit_huge')
    assert here.grid == there.grid == 16 and (here.patch_size, there.patch_size) == (16, 14)
    assert here.to_dict() | dict(patch_size=14, img_size=224) == there.to_dict()


def test_heads_are_mmsegs(stock):
    """Differences from the stock UperNet (R-50, Cityscapes): classes, widths, backbone with neck, crop, sliding."""
    found = differences(load('l').model.to_dict(), stock[0].model.to_dict())
    backbone = {k: v for k, v in found.items() if k.startswith('backbone.')}
    assert {k: v for k, v in found.items() if k not in backbone} == {
        'pretrained': (None, 'open-mmlab://resnet50_v1c'),
        'neck': (dict(type='Feature2Pyramid', embed_dim=1024, rescales=[4, 2, 1, 0.5],
                      norm_cfg=dict(type='SyncBN', requires_grad=True)), None),
        'decode_head.in_channels': ([1024] * 4, [256, 512, 1024, 2048]),
        'decode_head.num_classes': (150, 19), 'auxiliary_head.num_classes': (150, 19),
        'data_preprocessor.size': ((512, 512), None), 'data_preprocessor.test_cfg': (dict(size_divisor=32), None),
        'test_cfg.mode': ('slide', 'whole'), 'test_cfg.crop_size': ((512, 512), None),
        'test_cfg.stride': ((341, 341), None)}


def test_data_is_mmsegs(stock):
    """Literally its ADE20K file but for batch, pinned memory and the multi-scale test (see tta_pipeline)."""
    ours, theirs = load('h').to_dict(), stock[1].to_dict()
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        found = differences(ours[key], theirs[key])
        assert found == (dict(batch_size=(2, 4), pin_memory=(True, None)) if key == 'train_dataloader' else {})
    (load_ours, ours), (load_theirs, theirs) = ours['tta_pipeline'], theirs['tta_pipeline']
    assert load_ours == load_theirs | dict() or differences(load_ours, load_theirs) == {}
    scales, *rest = ours['transforms']
    stock_scales, *stock_rest = theirs['transforms']
    assert [s.pop('scale') for s in scales] == [(2048 * s.pop('scale_factor'), 512 * r) for s, r in zip(
        stock_scales, (0.5, 0.75, 1, 1.25, 1.5, 1.75), strict=True)]
    assert scales == stock_scales
    assert [s | dict(reduce_zero_label=True) if s['type'] == 'LoadAnnotations' else s for step in stock_rest
            for s in step] == [s for step in rest for s in step]


@pytest.mark.parametrize('size', 'blh')
def test_model(size):
    """Parameters, drop path and what the taps are made of, on the model itself."""
    cfg, (_, _, drop_path, taps, millions) = load(size), RECIPE[size]
    model = build(cfg.model)
    backbone, depth = model.backbone, len(model.backbone.blocks)
    assert round(sum(p.numel() for p in backbone.parameters()) / 1e6) == millions
    rates = [getattr(block.drop_path1, 'drop_prob', 0.) for block in backbone.blocks]
    assert rates == pytest.approx([drop_path * i / (depth - 1) for i in range(depth)])
    assert [type(n) for n in backbone.tap_norms] == [nn.LayerNorm] * 4 and backbone.out_indices == taps
    assert backbone.windows == [0] * depth
    assert (backbone.blocks[0].attn.qkv.bias is None) == (size == 'h')
    assert {type(m).__name__ for m in model.modules() if 'BatchNorm' in type(m).__name__} == {'SyncBatchNorm'}


def expected_lr(base: float, iteration: int) -> float:
    """Linear from 1e-6 of `base` to all of it at iteration 1499, then linear to 0 at the last.

    mmengine reaches the end of a schedule at `end - 1`: the last step changes nothing.
    """
    if iteration < 1500:
        return base * (1e-6 + (1 - 1e-6) * iteration / 1499)
    return base * (79999 - iteration) / (79999 - 1500)


@pytest.mark.parametrize('size', 'bl')
def test_learning_rate_over_time(size):
    """mmseg's own 80k schedule ends at 1e-4, above these rates; ours at 0, in every layer (b has a rate, l and h)."""
    cfg = load(size)
    bases = [cfg.optim_wrapper.optimizer.lr * scale for scale in (1, 0.95**33)]
    optimizer = torch.optim.SGD([dict(params=[nn.Parameter(torch.zeros(1))], lr=base) for base in bases])
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler]
    at, seen = (0, 1, 750, 1498, 1499, 1500, 1501, 8000, 40000, 79998, 79999), {}
    for iteration in range(cfg.train_cfg.max_iters):
        if iteration in at:
            seen[iteration] = [group['lr'] for group in optimizer.param_groups]
        optimizer._opt_called = True  # torch warns of a scheduler's step before the optimizer's
        for scheduler in schedulers:
            scheduler.step()
    for i, base in enumerate(bases):
        assert {k: v[i] for k, v in seen.items()} == pytest.approx({i: expected_lr(base, i) for i in at}, abs=1e-15)


@pytest.mark.parametrize('size', 'blh')
def test_learning_rate_and_decay_of_every_parameter(size):
    """0.95 to the number of layers above, for stem and blocks; neck, heads and tap norms have the whole rate."""
    cfg = load(size)
    model, settings = build(cfg.model), cfg.optim_wrapper
    settings.optimizer.fused = False  # which needs numbers
    lr, decay, depth = settings.optimizer.lr, settings.optimizer.weight_decay, len(model.backbone.blocks)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = {names[id(p)]: (group['lr'], group['weight_decay'])
            for group in build_optim_wrapper(model, settings).optimizer.param_groups for p in group['params']}
    assert seen.keys() == set(names.values())
    for name, parameter in model.named_parameters():
        block = re.match(r'backbone\.blocks\.(\d+)\.', name)
        stem = name.startswith(('backbone.patch_embed', 'backbone.cls_token', 'backbone.pos_embed'))
        above = depth - int(block[1]) if block else depth + 1 if stem else 0
        plain = parameter.ndim == 1 or name in ('backbone.cls_token', 'backbone.pos_embed')
        assert seen[name] == pytest.approx((lr * 0.95**above, 0 if plain else decay)), name


@pytest.mark.parametrize('size', 'blh')
def test_cost_in_the_docs_and_the_header(size):
    """FLOPs and parameters are counted; the hours follow from them at 30 TFLOP/s."""
    cfg = load(size)
    cfg.model.backbone.bf16 = False  # the meta device has no autocast
    model = build(cfg.model).eval()
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as backbone:
        maps = model.backbone(torch.empty(1, 3, 512, 512))
    with torch.device('meta'), torch.no_grad(), FlopCounterMode(display=False) as heads:
        features = model.neck(maps)
        model.decode_head(features), model.auxiliary_head(features)
    forward = backbone.get_total_flops() + heads.get_total_flops()
    hours = round(3 * forward * cfg.train_cfg.max_iters * 16 / 30e12 / 3600)
    row = [backbone.get_total_flops() / 1e9, forward / 1e9, sum(p.numel() for p in model.parameters()) / 1e6]
    line = f'| ViT-{size.upper()} | ' + ' | '.join(f'{value:.0f}' for value in row) + f' | about {hours} |'
    assert line in (ROOT / 'docs/tasks/ade20k.md').read_text()
    for method in ('incub', 'e2e'):
        header = (ROOT / f'configs/ade20k/upernet_vit_{size}_{method}.py').read_text()
        assert f'about {hours} A100 hours' in header
