"""Every config trains and predicts on a GPU that is not there: each tensor is where it belongs, and no step waits.

Left out is the backward pass, which torch refuses without a GPU: gradients are made by hand. Values are not known,
so masks select everything. CONTRIBUTING.md says what this holds and what it does not.
"""
from argparse import Namespace
from functools import cache

import pytest
import torch
from mmengine.config import Config

from mmincubation.config.load import load_config
from mmincubation.probes.features import FeatureViT, extract
from mmincubation.probes.run import features_of, neighbours
from mmincubation.vit import Arch
from tests.downstream.test_timm_vit_in_mm import documented
from tests.helpers.fake_gpu import fake_gpu
from tests.helpers.fake_steps import Run, groups, running, short
from tests.helpers.paths import ROOT

GROUPS = groups()

# Who waits, for what, and why that is allowed. `step` is a training step with its hooks, `tool` what tools/predict.py
# does of a prediction. Nothing of this project waits in a step.
ALLOWED = {
    ('mmengine', 'begin'): """
mmincubation.incubation.model _place: to the device, to the host | once a phase: what waits on the CPU comes and goes
mmincubation.incubation.start _copy_ends: to the host | once a phase: the target's weights wait on the CPU
mmincubation.incubation.start begin_module: to the host | the same
""",
    ('mmengine', 'metric'): """
mmincubation.models.accuracy process: number | one transfer of a batch's ranks, in validation
""",
    ('mmengine', 'tool'): """
mmincubation.inference.results plain: to the host | the result is numpy's
""",
    ('mmseg', 'step'): """
mmseg.models.data_preprocessor <listcomp>: to the device | mmseg's: the order of the channels is a list of numbers
mmseg.models.losses.accuracy accuracy: mask | mmseg's accuracy leaves out ignored pixels
mmseg.structures.sampler.ohem_pixel_sampler sample: mask | mmseg's choice of hard pixels
""",
    ('mmseg', 'predict'): """
mmseg.models.data_preprocessor <listcomp>: to the device | as in training
mmseg.models.segmentors.encoder_decoder slide_inference: number | mmseg asserts that windows cover the image
""",
    ('mmseg', 'metric'): """
mmseg.evaluation.metrics.iou_metric intersect_and_union: mask, to the host | areas are added up on the host
""",
    ('mmseg', 'tool'): """
mmincubation.inference.results plain: to the host | the result is numpy's
""",
    ('mmdet', 'step'): """
mmengine.model.base_model.data_preprocessor forward: to the device | mmengine's: the order of the channels
mmcv._ext nms: nms | how many boxes stay is a number
mmcv.ops.nms batched_nms: to the device | mmcv's offset of one is a new tensor
mmdet.models.dense_heads.anchor_head _get_targets_single: mask, number | mmdet's anchors inside the image
mmdet.models.dense_heads.rpn_head _bbox_post_process: number | mmdet drops empty boxes
mmdet.models.losses.cross_entropy_loss _expand_onehot_labels: nonzero | mmdet's
mmdet.models.losses.smooth_l1_loss forward: number | mmdet asks if any weight is not zero
mmdet.models.roi_heads.bbox_heads.bbox_head loss: mask, number | mmdet's positive boxes
mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor forward: nonzero | mmdet's boxes of each level
mmdet.models.task_modules.assigners.max_iou_assigner assign_wrt_overlaps: mask, nonzero, number | mmdet's, by object
mmdet.models.task_modules.coders.delta_xywh_bbox_coder bbox2delta: to the device | mmdet's means are new in each call
mmdet.models.task_modules.coders.delta_xywh_bbox_coder delta2bbox: to the device | the same
mmdet.models.task_modules.prior_generators.anchor_generator single_level_grid_priors: to the device | mmdet's anchors
mmdet.models.task_modules.samplers.base_sampler sample: unique | mmdet's
mmdet.models.task_modules.samplers.random_sampler _sample_neg: nonzero | mmdet's
mmdet.models.task_modules.samplers.random_sampler _sample_pos: nonzero | mmdet's
mmdet.models.task_modules.samplers.random_sampler random_choice: to the device | mmdet draws on the host
mmdet.models.utils.misc unmap: mask | mmdet's
mmdet.structures.bbox.bbox_overlaps bbox_overlaps: to the device | mmdet's epsilon is a new tensor
mmdet.structures.mask.mask_target mask_target_single: to the device, to the host | mmdet cuts masks with numpy
mmdet.structures.mask.structures crop_and_resize: to the device, to the host | mmdet's bitmaps, by RoIAlign on a CPU
""",
    ('mmdet', 'predict'): """
mmengine.model.base_model.data_preprocessor forward: to the device | as in training
mmcv._ext nms: nms | as in training
mmcv.ops.nms batched_nms: to the device | as in training
mmdet.models.dense_heads.rpn_head _bbox_post_process: number | as in training
mmdet.models.layers.bbox_nms multiclass_nms: nonzero | boxes above the threshold
mmdet.models.roi_heads.mask_heads.fcn_mask_head _do_paste_mask: nonzero, number | mmdet pastes masks into the image
mmdet.models.roi_heads.mask_heads.fcn_mask_head _predict_by_feat_single: to the device | mmdet's factors of scale
mmdet.models.roi_heads.roi_extractors.single_level_roi_extractor forward: nonzero | as in training
mmdet.models.task_modules.coders.delta_xywh_bbox_coder delta2bbox: to the device | as in training
mmdet.models.task_modules.prior_generators.anchor_generator single_level_grid_priors: to the device | as in training
""",
    ('mmdet', 'metric'): """
mmdet.evaluation.metrics.coco_metric process: to the host | boxes and masks are encoded on the host
""",
    ('mmdet', 'tool'): """
mmengine.structures.base_data_element cpu: to the host | the result is numpy's
""",
} | {(scope, 'log'): """
mmincubation.hooks.runtime_info on_host: number | all losses since the last log line, in one transfer
""" for scope in ('mmengine', 'mmdet', 'mmseg')}


def allowed(scope: str, stage: str) -> set[str]:
    """The entries of a list, one for each kind, without the reasons."""
    found = set()
    for line in ALLOWED.get((scope, stage), '').strip().splitlines():
        sync, _, reason = line.partition(' | ')
        who, _, kinds = sync.partition(': ')
        assert reason, line
        found |= {f'{who}: {kind}' for kind in kinds.split(', ')}
    return found


def ran(cfg: Config, steps: int = 1) -> Run:
    with running(short(cfg)) as run:
        run.steps = steps
        run.train()
        run.predict()
    return run


@cache
def syncs_of(name: str) -> dict[tuple[str, str], set[str]]:
    """What a config of the repository waits for, by task and stage."""
    run = ran(load_config(ROOT / f'configs/{name}.py'))
    return {(run.cfg.default_scope, stage): syncs for stage, syncs in run.syncs.items()}


def faults(run: Run) -> set[str]:
    """The syncs that no list allows."""
    return {f'{stage}: {sync}' for stage, syncs in run.syncs.items()
            for sync in syncs - allowed(run.cfg.default_scope, stage)}


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr('mmincubation.engine.optim.print_log', lambda *args, **kwargs: None)


# --- every config

@pytest.mark.parametrize('name', GROUPS, ids=lambda name: f'{name}_and_{len(GROUPS[name]) - 1}_more')
def test_trains_and_predicts_on_the_device(name):
    assert not {(*key, sync) for key, syncs in syncs_of(name).items() for sync in syncs - allowed(*key)}


def test_each_config_is_in_a_group():
    assert {name for names in GROUPS.values() for name in names} == {
        f'{path.parent.name}/{path.stem}' for path in (ROOT / 'configs').glob('[!_]*/*.py')}


@pytest.mark.parametrize('changes', [
    dict(mode='joint'), dict(mode='joint', start='ends', recipe='paper_code'), dict(recipe='paper_code')], ids=str)
def test_so_do_the_modes_and_recipes(changes):
    cfg = load_config(ROOT / 'configs/imagenet/vit_b_incub.py')
    cfg.train_cfg.update(changes)
    if changes.get('recipe') == 'paper_code':
        cfg.train_cfg.phases.module.pop('drop_path_rate')
    assert not faults(ran(cfg))


ROTARY = ['timm.layers.pos_embed_sincos _get_pos_embed_from_coords: to the device']  # timm's range of values


@pytest.mark.parametrize('file', ['maskrcnn_dinov2.py', 'upernet_dinov3.py'])
def test_so_do_vits_of_timm(file, tmp_path):
    cfg = documented(file, tmp_path)
    cfg.model.backbone.model_args = dict(depth=4)
    cfg.model.backbone.out_indices = tuple(range(4))[-len(cfg.model.backbone.out_indices):]
    assert faults(ran(cfg)) == {
        f'{stage}: {sync}' for stage in ('step', 'predict') for sync in ROTARY if 'dinov3' in file}


@pytest.mark.parametrize('changes', [
    dict(type='OptimWrapper', clip_grad=dict(max_norm=1.)), dict(accumulative_counts=2)], ids=str)
def test_so_do_other_optimisers(changes):
    cfg = load_config(ROOT / 'configs/cifar100/deit_t_32_e2e.py', dict(optim_wrapper=changes))
    assert not faults(ran(cfg, steps=2))


def test_a_step_waits_for_the_guard_where_the_optimiser_is_not_fused():
    cfg = load_config(ROOT / 'configs/cifar100/deit_t_32_e2e.py')
    cfg.optim_wrapper.optimizer = dict(type='SGD', lr=1., momentum=0.9)
    assert faults(ran(cfg)) == {'step: mmincubation.recovery.divergence _before_step: number'}


def test_probes_leave_the_device_once_a_batch(monkeypatch):
    monkeypatch.setattr(FeatureViT, 'to', lambda self, device: self.to_empty(device=device))
    monkeypatch.setattr('mmincubation.probes.run.extract', torch.no_grad()(extract.__wrapped__))  # not inference_mode
    arch = Arch.parse(dict(embed_dim=32, depth=2, num_heads=2, patch_size=4, img_size=8, num_classes=3))
    args = Namespace(mean=(0., 0., 0.), std=(1., 1., 1.), workers=0)
    with torch.device('meta'):
        vit = FeatureViT(arch, True, 'token').eval()
    with fake_gpu() as found:
        images = [dict(inputs=torch.zeros(3, 8, 8, dtype=torch.uint8), labels=torch.tensor(0))] * 65
        features = features_of(args, vit, images, images)
        assert not any(tensor.is_cuda for tensor in features)
        neighbours(*features, 0)
    assert {f'{who}: {kind}' for who, kind in found} == {
        'mmincubation.probes.features extract: to the host', 'mmincubation.probes.run features_of: to the device',
        'mmincubation.probes.run neighbours: to the device', 'mmincubation.probes.run neighbours: to the host',
        'mmincubation.probes.fit knn: number'}


def test_the_lists_name_nothing_that_is_not_found():
    """With one config of each kind."""
    found = {}
    for name in ('cifar100/deit_t_128_grow_only', 'demo/upernet_vit_demo_e2e', 'ade20k/linear_vit_b_e2e',
                 'coco/maskrcnn_deit_b_3x', 'demo/maskrcnn_vit_demo_e2e'):
        for key, syncs in syncs_of(name).items():
            found.setdefault(key, set()).update(syncs)
    assert {key: allowed(*key) - found[key] for key in ALLOWED} == {key: set() for key in ALLOWED}
