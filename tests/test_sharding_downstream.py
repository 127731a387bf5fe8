"""Mask R-CNN and UperNet on a ViT that is spread over two CPU ranks, in small: the runs of two copies."""
from pathlib import Path

import pytest

from mmincubation.engine.config_check import load_config
from tests.resumed import assert_same_run
from tests.shrink import shrink
from tests.synthetic_ade import write_ade
from tests.synthetic_coco import write_coco
from tests.test_sharding import ITERATION, SPREAD, held, run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('sharding_downstream')
    write_coco(root / 'coco')
    write_ade(root / 'ade/ADEChallengeData2016')
    return root


@pytest.mark.parametrize('name', ['coco/maskrcnn_vit_h_incub', 'ade20k/upernet_vit_h_incub'])
def test_the_run_of_two_copies_bit_for_bit(data, tmp_path, name):
    """With windows, activation checkpointing and bfloat16; killed and resumed. A detector's clipping would sum in
    another order."""
    cfg = shrink(load_config(ROOT / f'configs/{name}.py'), data)
    cfg.train_dataloader.batch_size = 1 if 'coco' in name else 2
    cfg.train_cfg.update(dict(max_epochs=2, val_interval=2) if 'coco' in name else dict(max_iters=4, val_interval=4))
    cfg.default_hooks.checkpoint.update(interval=1 if 'coco' in name else 2, save_best=None, max_keep_ckpts=2)
    cfg.default_hooks.logger = dict(type='LoggerHook', interval=1)
    cfg.default_hooks.pop('visualization', None)
    cfg.visualizer.vis_backends = [dict(type='LocalVisBackend')]
    cfg.optim_wrapper.clip_grad = None
    cfg.custom_hooks.append(dict(type='tests.test_sharding.HeldBytes'))
    copies = run(cfg, tmp_path / 'copies')
    run(cfg, tmp_path / 'spread', 2, SPREAD, kill_at=f'{ITERATION}:4')
    spread = run(cfg, tmp_path / 'spread', 2, SPREAD)
    assert_same_run(spread, copies)
    for key in ('parameters', 'state'):
        assert [rank[key] for rank in held(spread)] == pytest.approx([held(copies)[0][key] / 2] * 2, rel=.02)
