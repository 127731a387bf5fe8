"""The backbone inside stock mmdet and mmseg models, named in their configs as any user would.

mmdet and mmseg are imported inside the tests, after mmincubation, which makes mmcv.ops importable.
"""
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import InstanceData, PixelData

from mmincubation.checkpoints import write_tensors
from mmincubation.models import VisionTransformer
from tests.helpers.paths import ROOT

TINY = dict(embed_dim=16, depth=4, num_heads=2, patch_size=16, img_size=64, num_classes=3)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def released(package, name):
    """The model of a config that the package ships."""
    return Config.fromfile(Path(package.__file__).parent / '.mim' / 'configs' / '_base_' / 'models' / name).model


def build(cfg, scope):
    """As the Runner does: from the root registry, under the config's default scope."""
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(cfg)


def saved(folder):
    """Weights of a tiny ViT on disk."""
    vit = VisionTransformer(TINY)
    write_tensors(folder / 'vit.safetensors', vit.state_dict(), {})
    return vit, dict(type='Pretrained', checkpoint=str(folder / 'vit.safetensors'))


def assert_trains(model, images, samples):
    """A step gives finite losses and a gradient to every parameter, which DDP demands."""
    losses = model(images, samples, mode='loss')
    total, _ = model.parse_losses(losses)
    total.backward()
    assert torch.isfinite(total)
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def mask_rcnn(init_cfg=None):
    import mmdet
    cfg = released(mmdet, 'mask-rcnn_r50_fpn.py')
    cfg.backbone = dict(type='mmincubation.ViTBackbone', arch=TINY, out_indices=(3, ), window_size=3,
                        global_blocks=(1, 3), init_cfg=init_cfg)
    cfg.neck = dict(type='mmincubation.SimpleFeaturePyramid', in_channels=16, out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.out_channels = cfg.roi_head.mask_roi_extractor.out_channels = 16
    cfg.roi_head.bbox_head.update(in_channels=16, fc_out_channels=16, num_classes=3)
    cfg.roi_head.mask_head.update(in_channels=16, conv_out_channels=16, num_classes=3)
    return build(cfg, 'mmdet')


def upernet(init_cfg=None):
    import mmseg
    cfg, norm = released(mmseg, 'upernet_r50.py'), dict(type='BN')
    cfg.pretrained = None
    cfg.backbone = dict(type='mmincubation.ViTBackbone', arch=TINY, out_indices=(0, 1, 2, 3), cls_token=True,
                        tap_norm=True, init_cfg=init_cfg)
    cfg.neck = dict(type='Feature2Pyramid', embed_dim=16, rescales=[4, 2, 1, .5], norm_cfg=norm)
    cfg.decode_head.update(in_channels=[16] * 4, channels=16, num_classes=5, norm_cfg=norm)
    cfg.auxiliary_head.update(in_channels=16, channels=16, num_classes=5, norm_cfg=norm)
    return build(cfg, 'mmseg')


def test_in_a_mask_rcnn(tmp_path):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    vit, init_cfg = saved(tmp_path)
    model = mask_rcnn(init_cfg)
    model.init_weights()
    assert model.backbone.blocks[2].mlp.fc1.weight.equal(vit.blocks[2].mlp.fc1.weight)
    masks = np.zeros((1, 64, 96), np.uint8)
    masks[0, 8:40, 16:56] = 1
    truth = InstanceData(bboxes=torch.tensor([[16., 8, 56, 40]]), labels=torch.tensor([1]),
                         masks=BitmapMasks(masks, 64, 96))
    sample = DetDataSample(metainfo=dict(img_shape=(64, 96), batch_input_shape=(64, 96), pad_shape=(64, 96)))
    sample.gt_instances = truth
    assert_trains(model, torch.randn(1, 3, 64, 96), [sample])


def test_in_an_upernet(tmp_path):
    from mmseg.structures import SegDataSample
    vit, init_cfg = saved(tmp_path)
    model = upernet(init_cfg)
    model.init_weights()
    assert model.backbone.cls_token.equal(vit.cls_token)
    sample = SegDataSample(metainfo=dict(img_shape=(64, 64)),
                           gt_sem_seg=PixelData(data=torch.randint(0, 5, (1, 64, 64))))
    assert_trains(model, torch.randn(2, 3, 64, 64), [sample, sample])


def test_the_name_resolves_without_any_import_of_ours():
    code = ('import sys\n'
            'from mmengine.registry import MODELS, DefaultScope\n'
            "arch = dict(embed_dim=4, depth=1, num_heads=1)\n"
            "cfg = dict(type='mmincubation.ViTBackbone', arch=arch, out_indices=(0, ))\n"
            "with DefaultScope.overwrite_default_scope('mmengine'):\n"
            '    print(type(MODELS.build(cfg)).__module__)\n')
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                            cwd=ROOT, timeout=120)
    assert result.stdout.strip() == 'mmincubation.downstream.backbone', result.stderr
