"""The COCO configs: values of the recipe, stock heads, and that runs to be compared differ in their weights alone."""
import ast
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, PARAM_SCHEDULERS, DefaultScope

from mmincubation.config.load import load_config
from mmincubation.config.models import model_problems
from mmincubation.config.types import type_problems
from tests.helpers.paths import ROOT

LEAVES = sorted((ROOT / 'configs/coco').glob('*.py'))
SIZES = {  # arch, depth, width, drop path, global blocks, activation checkpointing
    'b': ('vit_base', 12, 768, 0.1, (2, 5, 8, 11), False),
    'l': ('vit_large', 24, 1024, 0.4, (5, 11, 17, 23), False),
    'h': (dict(name='vit_huge', patch_size=16, img_size=256), 32, 1280, 0.5, (7, 15, 23, 31), True)}
ROWS = [(size, method, schedule) for size in SIZES for method in ('incub', 'e2e') for schedule in ('1x', '3x')]
SCALES = [(side, 1333) for side in (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)]


def name_of(size: str, method: str, schedule: str) -> str:
    return f'maskrcnn_vit_{size}_{method}' + ('_3x' if schedule == '3x' else '')


def load(name: str) -> Config:
    return load_config(ROOT / f'configs/coco/{name}.py')


def plain(value):
    """A config's value with lists for tuples, which mean the same."""
    if isinstance(value, dict):
        return {key: plain(v) for key, v in value.items()}
    return [plain(v) for v in value] if isinstance(value, list | tuple) else value


def differences(a, b, place: str = '') -> dict:
    """{dotted place: (value of a, value of b)} of all that differs; not of helper variables, which begin with `_`."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = {}
        for key in (key for key in {**a, **b} if not key.startswith('_')):
            found |= differences(a.get(key), b.get(key), f'{place}.{key}' if place else key)
        return found
    return {} if plain(a) == plain(b) else {place: (a, b)}


def test_the_files_are_the_rows_and_two_of_ours():
    assert {p.stem for p in LEAVES} == {name_of(*row) for row in ROWS} | {
        'maskrcnn_deit_b_3x', 'maskrcnn_vit_b_incub_strong_head'}


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_the_header_says_how_to_run_it(path):
    header, cfg = ast.get_docstring(ast.parse(path.read_text())), load(path.stem)
    file, epochs = f'configs/coco/{path.name}', cfg.train_cfg.max_epochs
    assert f'python tools/train.py {file}\n' in header and f'tools/dist_train.sh {file} 8\n' in header
    assert f'python tools/test.py {file} work_dirs/{path.stem}/epoch_{epochs}.pth' in header
    assert 'Batch:    16 = 8 GPUs x 2;' in header and 'Result:   not run' in header and 'A100 hours' in header
    assert ('3x (36 epochs)' in header) == (epochs == 36)


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_no_key_is_unknown_and_the_models_make_sense(path):
    cfg = load(path.stem)
    assert list(type_problems(dict(cfg.items()))) == []
    assert list(model_problems(cfg)) == []


@pytest.mark.parametrize('row', ROWS, ids=lambda r: name_of(*r))
def test_the_backbone_of_each_size(row):
    size, method, schedule = row
    cfg = load(name_of(*row))
    arch, depth, width, drop_path, global_blocks, with_cp = SIZES[size]
    weights = dict(incub='finetune_last', e2e='e2e_last')[method]
    assert plain(cfg.model.backbone) == plain(dict(
        type='mmincubation.ViTBackbone', arch=arch, out_indices=(depth - 1, ), window_size=14,
        global_blocks=global_blocks, drop_path_rate=drop_path, bf16=True, **(dict(with_cp=True) if with_cp else {}),
        init_cfg=dict(type='Pretrained', checkpoint=f'work_dirs/vit_{size}_{method}/weights/{weights}.safetensors')))
    assert plain(cfg.model.neck) == plain(dict(
        type='mmincubation.SimpleFeaturePyramid', in_channels=width, out_channels=256, scales=(4, 2, 1, 0.5),
        num_outs=5, bf16=True))
    model = f'ViT-{size.upper()}' + ('-3x' if schedule == '3x' else '')  # rows of one name stand in one comparison
    assert cfg.experiment == dict(task='detection', model=model, method=method, data='COCO')


@pytest.mark.parametrize('size', SIZES)
def test_1x_and_3x_differ_in_the_schedule_alone(size):
    found = differences(*(load(name_of(size, 'incub', schedule)).to_dict() for schedule in ('1x', '3x')))
    assert set(found) == {'experiment.model', 'train_cfg.max_epochs', 'param_scheduler',
                          'train_dataloader.dataset.pipeline'}


def test_sizes_differ_in_the_backbone_alone():
    base = load('maskrcnn_vit_b_incub').to_dict()
    for size in 'lh':
        found = differences(base, load(f'maskrcnn_vit_{size}_incub').to_dict())
        assert {place.rpartition('.')[0] for place in found} <= {
            'model.backbone', 'model.backbone.init_cfg', 'model.neck', 'experiment'}
        assert {p for p in found if p.startswith('model.neck')} == {'model.neck.in_channels'}


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_the_optimiser_and_the_schedule(path):
    cfg = load(path.stem)
    assert plain(cfg.optim_wrapper) == dict(
        type='OptimWrapper', constructor='mmincubation.ViTOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay=0.95),
        optimizer=dict(type='AdamW', lr=1e-4, betas=[0.9, 0.999], weight_decay=0.05, fused=True))  # and no clip_grad
    epochs, steps = {12: (12, [8, 11]), 36: (36, [27, 33])}[cfg.train_cfg.max_epochs]
    assert cfg.param_scheduler == [
        dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1000),
        dict(type='MultiStepLR', by_epoch=True, begin=0, end=epochs, milestones=steps, gamma=0.1)]
    assert cfg.train_cfg.val_interval == 1 and cfg.auto_scale_lr == dict(base_batch_size=16)
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size
    assert {hook['type'] for hook in cfg.custom_hooks} == {'mmincubation.CostMeter', 'mmincubation.ResultHook'}
    assert cfg.default_hooks.checkpoint == dict(type='mmincubation.CheckpointHook', interval=1, max_keep_ckpts=1)
    assert 'visualization' in cfg.default_hooks  # for --show-dir


def rates_over_time(cfg: Config, per_epoch: int) -> list[float]:
    """The rate of each iteration of a training, from the config's own schedulers."""
    optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=cfg.optim_wrapper.optimizer.lr)
    by_iter, by_epoch = ([PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler
                          if s.by_epoch == kind] for kind in (False, True))
    rates = []
    optimizer.step()
    for _ in range(cfg.train_cfg.max_epochs):
        for _ in range(per_epoch):
            rates.append(optimizer.param_groups[0]['lr'])
            if len(rates) <= 2000:  # the warm-up is over
                by_iter[0].step()
        by_epoch[0].step()
    return rates


@pytest.mark.parametrize('schedule', ['1x', '3x'])
def test_rates_over_time(schedule):
    cfg = load(name_of('b', 'incub', schedule))
    per_epoch = -(-117_266 // 16)  # the images of train2017 that have objects
    rates = rates_over_time(cfg, per_epoch)
    first, second = (8, 11) if schedule == '1x' else (27, 33)
    expected = {0: 1e-7, 500: 5.01e-5, 999: 1e-4, 1000: 1e-4, first * per_epoch - 1: 1e-4, first * per_epoch: 1e-5,
                second * per_epoch - 1: 1e-5, second * per_epoch: 1e-6, len(rates) - 1: 1e-6}
    assert {i: rates[i] for i in expected} == pytest.approx(expected, rel=2e-3)
    assert len(rates) == per_epoch * (12 if schedule == '1x' else 36)


@pytest.mark.parametrize('path', LEAVES, ids=lambda p: p.stem)
def test_what_is_tested_is_val2017_at_1333x800(path):
    cfg = load(path.stem)
    assert cfg.test_dataloader == cfg.val_dataloader and cfg.test_evaluator == cfg.val_evaluator
    assert cfg.val_evaluator == dict(
        type='mmincubation.FastCocoMetric', ann_file='data/coco/annotations/instances_val2017.json',
        metric=['bbox', 'segm'])
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train2017.json'


def released(name: str) -> Config:
    import mmdet
    return Config.fromfile(Path(mmdet.__file__).parent / '.mim/configs/_base_' / name)


def test_stock_means_stock():
    """Everything of Mask R-CNN that is not backbone or neck is what mmdet releases."""
    found = differences(released('models/mask-rcnn_r50_fpn.py').model.to_dict(),
                        load('maskrcnn_vit_b_incub').model.to_dict())
    assert {'.'.join(place.split('.')[:1]) for place in found} == {'backbone', 'neck'}


def test_data_means_stock():
    """Other than in mmdet's coco_instance.py: evaluator, a worker number, pinned memory, polygons; and settings of no
    effect."""
    theirs, ours = released('datasets/coco_instance.py').to_dict(), load('maskrcnn_vit_b_incub').to_dict()
    found = {}
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator', 'test_evaluator'):
        found |= differences(theirs[key], ours[key], key)
    silent = {place: values for place, values in found.items()
              if not place.endswith('backend_args') and not place.endswith('format_only')}
    expected = {'train_dataloader.num_workers': (2, 4), 'train_dataloader.pin_memory': (None, True)}
    expected |= {f'{mode}_evaluator.type': ('CocoMetric', 'mmincubation.FastCocoMetric') for mode in ('val', 'test')}
    for mode in ('train', 'val', 'test'):  # lists are compared whole
        place = f'{mode}_dataloader.dataset.pipeline'
        theirs_steps, ours_steps = silent.pop(place)
        if mode == 'train':
            assert ours_steps[1].pop('poly2mask') is False
        assert [{k: v for k, v in step.items() if k != 'backend_args'} for step in theirs_steps] == ours_steps
    assert silent == expected


def test_the_3x_pipeline():
    steps = load('maskrcnn_vit_b_incub_3x').train_dataloader.dataset.pipeline
    resize = dict(type='RandomChoiceResize', scales=SCALES, keep_ratio=True)
    small = dict(resize, scales=[(400, 1333), (500, 1333), (600, 1333)])
    crop = dict(type='RandomCrop', crop_type='absolute_range', crop_size=(384, 600), allow_negative_crop=True)
    assert plain(steps) == plain([
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
        dict(type='RandomFlip', prob=0.5),
        dict(type='RandomChoice', transforms=[[resize], [small, crop, resize]]),
        dict(type='RandomCrop', crop_type='absolute', crop_size=(1024, 1024), allow_negative_crop=True),
        dict(type='PackDetInputs')])


def test_strong_heads_are_vitdets_and_nothing_else_changes():
    found = differences(load('maskrcnn_vit_b_incub').to_dict(), load('maskrcnn_vit_b_incub_strong_head').to_dict())
    norm = dict(type='timm.layers.LayerNorm2d', eps=1e-6)
    assert {place: ours for place, (_, ours) in found.items()} == {
        'experiment.model': 'ViT-B-strong-head', 'experiment.note': 'ViTDet heads: not comparable with stock heads',
        'model.rpn_head.num_convs': 2, 'model.roi_head.bbox_head.type': 'Shared4Conv1FCBBoxHead',
        'model.roi_head.bbox_head.conv_out_channels': 256, 'model.roi_head.bbox_head.norm_cfg': norm,
        'model.roi_head.mask_head.norm_cfg': norm}


def test_calibration_is_a_3x_from_public_deit_b():
    found = differences(load('maskrcnn_vit_b_e2e_3x').to_dict(), load('maskrcnn_deit_b_3x').to_dict())
    assert {place: ours for place, (_, ours) in found.items()} == {
        'experiment.model': 'DeiT-B',
        'model.backbone.init_cfg.checkpoint': 'pretrained/deit_base_patch16_224-b5f2ef4d.pth'}


@pytest.fixture(scope='module', params=[*SIZES])
def built(request):
    """(size, the whole detector of its config without memory for weights)."""
    cfg = load(f'maskrcnn_vit_{request.param}_incub')
    with DefaultScope.overwrite_default_scope('mmdet'), torch.device('meta'):
        return request.param, MODELS.build(cfg.model), cfg


def test_drop_path_windows_and_size(built):
    size, model, _ = built
    _, depth, _, drop_path, global_blocks, with_cp = SIZES[size]
    backbone = model.backbone
    ramp = [drop_path * i / (depth - 1) for i in range(depth)]
    for branch in ('drop_path1', 'drop_path2'):
        assert [getattr(getattr(b, branch), 'drop_prob', 0.) for b in backbone.blocks] == pytest.approx(ramp)
    assert backbone.windows == [0 if i in global_blocks else 14 for i in range(depth)]
    ends = [(i + 1) * depth // 4 - 1 for i in range(4)]  # of the four modules of Deep Incubation
    assert list(global_blocks) == ends
    millions = sum(p.numel() for p in backbone.parameters()) / 1e6
    assert millions == pytest.approx(dict(b=86, l=303, h=631)[size], rel=0.01)  # the ViT without its head
    assert model.data_preprocessor.pad_size_divisor == 32 and backbone.patch_embed.patch_size == (16, 16)
    assert (backbone.bf16, model.neck.bf16, backbone.with_cp) == (True, True, with_cp)


def test_every_parameter_is_in_one_group_with_its_rate(built):
    size, model, cfg = built
    depth = SIZES[size][1]
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (g['lr'], g['weight_decay']) for g in optimizer.param_groups for p in g['params']}
    assert len(found) == len(names) == sum(len(g['params']) for g in optimizer.param_groups)
    assert len(optimizer.param_groups) == 2 * (depth + 2)
    for name, parameter in model.named_parameters():
        block = name.removeprefix('backbone.blocks.').partition('.')[0]
        power = 0 if not name.startswith('backbone.') else depth - int(block) if block.isdigit() else depth + 1
        decay = 0. if parameter.ndim == 1 or name == 'backbone.pos_embed' else 0.05
        assert found[name] == (pytest.approx(1e-4 * 0.95**power), decay), name
