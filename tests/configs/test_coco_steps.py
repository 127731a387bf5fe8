"""A 1x and a 3x training, shrunk, on synthetic COCO data on the CPU: whole pipelines, training, test-dev files."""
import json
import math

import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, DefaultScope
from mmengine.runner import Runner

from mmincubation.checkpoints import read_vit
from mmincubation.config.load import load_config
from mmincubation.config.problems import problems
from mmincubation.engine import launch, outputs
from mmincubation.errors import ConfigError
from tests.configs.test_coco import ROOT
from tests.helpers.shrink import shrink
from tests.helpers.synthetic_coco import CATEGORY_IDS, write_coco
from tests.helpers.toy import arguments


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('coco')
    write_coco(folder / 'coco')
    return folder


def small(name: str, data) -> Config:
    cfg = shrink(load_config(ROOT / f'configs/coco/{name}.py'), data)
    cfg.work_dir, cfg.log_level = str(data / name), 'WARNING'
    return cfg


def gradients(model, loader) -> torch.Tensor:
    """The loss of one batch; every parameter must get a gradient, which DDP demands."""
    model.train().zero_grad()
    batch = model.data_preprocessor(next(iter(loader)), training=True)
    assert batch['inputs'].shape[-1] % 32 == batch['inputs'].shape[-2] % 32 == 0
    assert any(side % (14 * 16) for side in batch['inputs'].shape[-2:])  # windows are padded
    loss, _ = model.parse_losses(model(**batch, mode='loss'))
    loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    return loss


@pytest.fixture(scope='module', params=['maskrcnn_vit_h_incub', 'maskrcnn_vit_b_e2e_3x'])
def trained(request, data):
    """(config, runner) of a training that is over."""
    cfg = small(request.param, data)
    assert problems(cfg, 'train') == []
    runner = Runner.from_cfg(cfg)
    runner.train()
    return cfg, runner


def test_a_training_runs_to_its_result(trained, data):
    cfg, runner = trained
    result = json.loads((data / cfg.work_dir / 'result.json').read_text())
    assert {f'coco/{kind}_{item}' for kind in ('bbox', 'segm') for item in ('mAP', 'mAP_50', 'mAP_75')} <= \
        set(result['metrics'])
    assert result['images_seen'] >= 4 and '100.0 %' in result['weights']['coverage']
    assert (data / cfg.work_dir / 'epoch_1.pth').is_file()
    before = read_vit(cfg.model.backbone.init_cfg.checkpoint)[0]
    after = runner.model.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert not after['backbone.blocks.0.mlp.fc1.weight'].equal(before['blocks.0.mlp.fc1.weight'])


def test_every_parameter_gets_a_gradient(trained):
    """With activation checkpointing (ViT-H) and without."""
    cfg, runner = trained
    assert runner.model.backbone.with_cp == ('vit_h' in cfg.work_dir)
    assert torch.isfinite(gradients(runner.model, runner.train_dataloader))


@pytest.mark.parametrize('name', ['maskrcnn_vit_b_incub', 'maskrcnn_vit_b_incub_3x'])
def test_the_real_pipelines_give_images_of_the_recipe(name, data):
    """Sizes as they are in the config, no model; boxes stay inside the image and agree with their masks."""
    dataset = small(name, data).train_dataloader.dataset
    dataset.pipeline = load_config(ROOT / f'configs/coco/{name}.py').train_dataloader.dataset.pipeline
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        built = DATASETS.build(dataset)
        shapes = []
        for sample in [built[i % len(built)] for i in range(24)]:
            shapes.append(sorted(sample['data_samples'].img_shape))
            height, width = sample['data_samples'].img_shape
            truth = sample['data_samples'].gt_instances
            assert sample['inputs'].shape == (3, height, width) and len(truth.masks) == len(truth.bboxes)
            boxes = truth.bboxes.tensor
            assert (boxes >= 0).all() and (boxes <= boxes.new_tensor([width, height, width, height])).all()
    assert built.metainfo['classes'][0] == 'person' and built.cat_ids == CATEGORY_IDS
    short, long = np.array(shapes).T
    if name.endswith('_3x'):
        assert len(set(short)) > 5 and long.max() <= 1024
    else:
        assert ((short == 800) | (long == 1333)).all() and long.max() <= 1333


@pytest.mark.parametrize('name, fraction', [('coco_1x', 0.863), ('coco_3x', 0.519)])
def test_mean_pixels_of_a_training_image(name, fraction):
    """Which the cost estimates of docs/tasks/coco.md scale by: relative to 1024 x 1024, after padding to 32."""
    steps = Config.fromfile(ROOT / f'configs/_base_/{name}.py').train_dataloader.dataset.pipeline[2:-1]
    np.random.seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        transform, pixels = Compose([dict(step) for step in steps]), []
    for i in range(240):
        height, width = ((480, 640), (640, 480), (427, 640))[i % 3]
        image = np.zeros((height, width, 3), np.uint8)
        made = transform(dict(img=image, img_shape=(height, width), height=height, width=width))['img']
        pixels.append(np.prod([math.ceil(side / 32) * 32 for side in made.shape[:2]]))
    assert np.mean(pixels) / 1024**2 == pytest.approx(fraction, rel=0.06)


def test_strong_heads_learn_too(data):
    cfg = small('maskrcnn_vit_b_incub_strong_head', data)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
        loader = Runner.build_dataloader(cfg.train_dataloader, seed=0)
    assert sum(type(m).__name__ == 'LayerNorm2d' for m in model.roi_head.modules()) == 8
    assert torch.isfinite(gradients(model, loader))


@pytest.mark.parametrize('trained', ['maskrcnn_vit_b_e2e_3x'], indirect=True)
def test_predictions_for_test_dev(trained, data):
    """As docs/tasks/coco.md says: a set without annotations; nothing is evaluated."""
    cfg, runner = trained
    cfg.dump(data / 'config.py')
    root, prefix = data / 'coco', data / f'upload/{runner.experiment_name}'
    args = arguments(
        data / 'config.py', 'test_dataloader.dataset.ann_file=annotations/image_info_test-dev2017.json',
        'test_dataloader.dataset.data_prefix.img=test2017/',
        f'test_evaluator.ann_file={root}/annotations/image_info_test-dev2017.json',
        checkpoint=str(data / cfg.work_dir / 'epoch_1.pth'), work_dir=str(data / 'tested'), format_only=str(prefix))
    assert launch.test(args) == 0
    images = {i['id'] for i in json.loads((root / 'annotations/image_info_test-dev2017.json').read_text())['images']}
    for kind, key in dict(bbox='bbox', segm='segmentation').items():
        results = json.loads(prefix.with_name(f'{prefix.name}.{kind}.json').read_text())
        assert {r['image_id'] for r in results} == images and {r['category_id'] for r in results} <= set(CATEGORY_IDS)
        assert all(key in r and 0 <= r['score'] <= 1 for r in results)


def test_predictions_are_a_pickle():
    with pytest.raises(ConfigError, match='--out scores.txt: .* ends in .pkl'):
        outputs.dump(Config(dict(default_scope='mmdet', test_evaluator=[])), 'scores.txt')


def test_a_classifier_has_nothing_to_write():
    cfg = Config(dict(default_scope='mmengine', test_evaluator=dict(type='mmincubation.Accuracy')))
    with pytest.raises(ConfigError, match='--format-only: mmincubation.Accuracy writes no predictions'):
        outputs.format_only(cfg, 'x')
