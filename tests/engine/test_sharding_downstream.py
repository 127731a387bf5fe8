"""Mask R-CNN and UperNet on a ViT that is spread over two CPU ranks, in small."""
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from mmincubation.config.load import load_config
from tests.engine.test_sharding import SPREAD, held, run
from tests.helpers.paths import ROOT
from tests.helpers.resumed import newest
from tests.helpers.shrink import shrink
from tests.helpers.synthetic_ade import write_ade
from tests.helpers.synthetic_coco import write_coco


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('sharding_downstream')
    write_coco(root / 'coco')
    write_ade(root / 'ade/ADEChallengeData2016')
    return root


def small(name: str, data: Path) -> Config:
    """An epoch of three iterations of a detector, or two of a segmentor; one validation."""
    cfg = shrink(load_config(ROOT / f'configs/{name}.py'), data)
    detects = 'coco' in name
    cfg.train_dataloader.batch_size = 1 if detects else 2
    cfg.train_cfg.update(dict(max_epochs=1, val_interval=1) if detects else dict(max_iters=2, val_interval=2))
    cfg.default_hooks.checkpoint.update(interval=1, save_best=None)
    cfg.default_hooks.pop('visualization', None)
    cfg.visualizer.vis_backends = []
    cfg.custom_hooks.append(dict(type='tests.engine.test_sharding.HeldBytes'))
    return cfg


@pytest.mark.parametrize('name', ['coco/maskrcnn_vit_h_incub', 'ade20k/upernet_vit_h_incub'])
def test_the_run_of_two_copies(data, tmp_path, name):
    """With windows, activation checkpointing, bfloat16 and fused AdamW: equal up to rounding."""
    cfg = small(name, data)
    copies = run(cfg, tmp_path / 'copies')
    spread = run(cfg, tmp_path / 'spread', 2, SPREAD)
    ours, theirs = (newest(path) for path in (spread, copies))
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if key.startswith(('/state_dict', '/optimizer/state')):
            torch.testing.assert_close(ours[key], value, rtol=1e-4, atol=1e-6, msg=lambda text: f'{key} {text}')  # noqa: B023
    for key in ('parameters', 'state'):
        assert [rank[key] for rank in held(spread)] == pytest.approx([held(copies)[0][key] / 2] * 2, rel=.02)
