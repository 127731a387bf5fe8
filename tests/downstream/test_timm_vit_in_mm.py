"""The backbone over timm's ViTs in the configs of docs/guides/weights.md, and in what checks a config."""
import re

import numpy as np
import pytest
import timm
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from bench.memory import SEG, measured
from mmincubation.check import memory
from mmincubation.check.report import Report
from mmincubation.check.weights import report_weights
from mmincubation.checkpoints import CheckpointError, read_tensors
from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.config.types import type_problems
from mmincubation.downstream import TimmViT
from mmincubation.engine.optim import ViTOptimWrapperConstructor
from mmincubation.models.on_meta import build_on_meta
from mmincubation.recovery.load_from import select_weights
from mmincubation.vit.sharding import blocks_of
from tests.downstream.test_backbone_in_mm import assert_trains
from tests.helpers.paths import ROOT

SMALL = dict(embed_dim=48, depth=4, num_heads=3)


def documented(name: str, folder) -> Config:
    """A whole config of the guide, of which the file is `name`."""
    blocks = re.findall(r'```python\n(.*?)```', (ROOT / 'docs/guides/weights.md').read_text(), re.S)
    text = next(block for block in blocks if block.startswith(f'# {name}'))
    (folder / name).write_text(text.replace("'configs/", f"'{ROOT}/configs/"))
    return load_config(folder / name)


def shrunk(cfg: Config) -> Config:
    backbone = cfg.model.backbone
    backbone.update(model_args=SMALL, img_size=56 if '14' in backbone.name else 64)
    backbone.out_indices = tuple(range(4))[-len(backbone.out_indices):]
    backbone.init_cfg = None
    return cfg


def weights(name: str, folder) -> str:
    torch.manual_seed(0)
    torch.save(timm.create_model(name, **SMALL).state_dict(), folder / 'timm.pth')
    return str(folder / 'timm.pth')


def build(cfg: Config):
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        return revert_sync_batchnorm(MODELS.build(cfg.model))


def detection_sample(side: int):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    masks = np.zeros((1, side, side), np.uint8)
    masks[0, 8:40, 16:56] = 1
    shape = (side, side)
    sample = DetDataSample(metainfo=dict(img_shape=shape, batch_input_shape=shape, pad_shape=shape))
    sample.gt_instances = InstanceData(bboxes=torch.tensor([[16., 8, 56, 40]]), labels=torch.tensor([1]),
                                       masks=BitmapMasks(masks, *shape))
    return sample


@pytest.mark.parametrize('file', ['maskrcnn_dinov2.py', 'upernet_dinov3.py'])
def test_the_guides_configs_are_right(file, tmp_path):
    """All that is wrong here is that data and weights are not there."""
    cfg = documented(file, tmp_path)
    assert list(type_problems(cfg)) == []
    found = [line for line in map(str, problems(cfg, 'train')) if 'does not exist' not in line]
    assert found == []
    model = build_on_meta(cfg)
    assert len(model.backbone.vit.blocks) == 12 and model.backbone.vit.embed_dim == 384


def test_the_guides_mask_rcnn_trains(tmp_path):
    cfg = shrunk(documented('maskrcnn_dinov2.py', tmp_path))
    cfg.model.neck.in_channels = 48
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=weights(cfg.model.backbone.name, tmp_path))
    model = build(cfg).train()
    model.init_weights()
    assert '100.0 %' in model.backbone.load_report['coverage']
    assert_trains(model, torch.randn(1, 3, 112, 112), [detection_sample(112)])
    levels = model.extract_feat(torch.randn(1, 3, 112, 112))
    assert [112 / level.shape[-1] for level in levels] == cfg.model.rpn_head.anchor_generator.strides


def test_the_guides_upernet_trains(tmp_path):
    from mmseg.structures import SegDataSample
    cfg = shrunk(documented('upernet_dinov3.py', tmp_path))
    cfg.model.neck.embed_dim = cfg.model.auxiliary_head.in_channels = 48
    cfg.model.decode_head.in_channels = [48] * 4
    cfg.model.backbone.init_cfg = dict(type='Pretrained', checkpoint=weights(cfg.model.backbone.name, tmp_path))
    model = build(cfg).train()
    model.init_weights()
    sample = SegDataSample(metainfo=dict(img_shape=(64, 64)),
                           gt_sem_seg=PixelData(data=torch.randint(0, 150, (1, 64, 64))))
    assert_trains(model, torch.randn(2, 3, 64, 64), [sample, sample])
    wrapper = ViTOptimWrapperConstructor(dict(optimizer=dict(type='AdamW')), dict(layer_decay=.9))(model)
    assert {group['layer'] for group in wrapper.optimizer.param_groups} == \
        {'stem', 'block 0', 'block 1', 'block 2', 'block 3', 'rest'}


# --- the checks

def small_upernet(**backbone) -> Config:
    """The demo's UperNet on DINOv3."""
    cfg = load_config(SEG, {'train_dataloader.dataset.pipeline.2.scale': (128, 128)})
    cfg.model.backbone = dict(type='mmincubation.TimmViT', name='vit_small_patch16_dinov3', model_args=SMALL,
                              out_indices=(0, 1, 2, 3), tap_norm=True, **backbone)
    cfg.model.data_preprocessor.size = (128, 128)
    cfg.model.neck.embed_dim = cfg.model.auxiliary_head.in_channels = 48
    cfg.model.decode_head.in_channels = [48] * 4
    return cfg


def test_memory_is_estimated():
    cfg = small_upernet()
    assert memory.estimate(cfg)[0].peak == pytest.approx(measured(cfg), rel=memory.ERROR / 100)
    plain, lean = (memory.estimate(small_upernet(with_cp=on))[0].kept for on in (False, True))
    assert lean < plain
    cfg.model_wrapper_cfg = dict(type='mmincubation.FullyShard')
    assert memory.estimate(cfg, 2)[0].sharded


@pytest.mark.parametrize('change, said', [
    (dict(window_size=14), 'model.backbone.window_size: mmincubation.TimmViT has no such key'),
    (dict(nam='a'), "model.backbone.nam: mmincubation.TimmViT has no such key (nearest: 'name')"),
    (dict(name='resnet50'), "'resnet50' is a ResNet"), (dict(drop_path_rate=2), 'drop_path_rate=2: give a number'),
    (dict(out_indices=(0, 1, 2)), 'end at the last block, 3')])
def test_wrong_keys_are_problems(change, said):
    cfg = small_upernet()
    cfg.model.backbone.update(change)
    assert any(said in line for line in map(str, problems(cfg, 'train')))


@pytest.mark.parametrize('name, said', [('vit_small_patch16_dinov3', 'coverage 56/56 keys, 100.0 %'),
                                        ('vit_small_patch16_224', 'does not fit the model')])
def test_weights_are_checked_without_memory(name, said, tmp_path):
    cfg, report = small_upernet(init_cfg=dict(type='Pretrained', checkpoint=weights(name, tmp_path))), Report()
    report.section('Weights')
    report_weights(cfg, report)
    assert said in report.text() + ' '.join(map(str, report.problems))


def test_the_vits_file_as_load_from_is_sent_to_init_cfg(tmp_path):
    cfg = small_upernet()
    cfg.load_from = weights(cfg.model.backbone.name, tmp_path)
    with pytest.raises(CheckpointError, match='weights of its ViT alone go to model.backbone.init_cfg'):
        select_weights(build_on_meta(cfg), read_tensors(cfg.load_from)[0], cfg)


@pytest.mark.parametrize('name', ['vit_small_patch14_reg4_dinov2', 'vit_small_patch16_dinov3'])
def test_its_blocks_are_known(name):
    """Which FullyShard divides and `compile` compiles."""
    assert blocks_of(model := TimmViT(name, (3, ), model_args=SMALL)) == list(model.vit.blocks)
