"""The shipped configs train, test and hand their weights on: shrunk copies on synthetic images, through the tools."""
import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from mmincubation.engine.launch import test as run_test
from mmincubation.engine.launch import train
from tests.datasets.test_classification import save_split
from tests.helpers.toy import arguments


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    """ImageNet's layout and CIFAR-100's, three classes of 12 JPEGs, about 60 pixels a side."""
    root = tmp_path_factory.mktemp('data')
    for split, seed in (('train', 0), ('val', 1)):
        for label in range(3):
            folder = root / split / f'n0{label}'
            folder.mkdir(parents=True)
            for i in range(12):
                rng = np.random.default_rng([seed, label, i])
                size = rng.integers(50, 70, 2)
                pixels = rng.integers(0, 60, (*size, 3)) + 80 * label
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f'{i}.jpg')
    for split in ('train', 'test'):
        plain = root / f'plain_{split}'
        for label in range(3):
            (plain / str(label)).mkdir(parents=True)
            for i in range(12):
                pixels = np.random.default_rng([label, i]).integers(0, 60, (32, 32, 3)) + 80 * label
                Image.fromarray(pixels.astype(np.uint8)).save(plain / str(label) / f'{i}.png')
        save_split(plain, root / 'cifar100' / split)
    return root


def shrink(data, config: str, work_dir, **more) -> Namespace:
    """Arguments of a tool: four blocks of width 12, three classes, batch 8, two workers; the recipe stays."""
    options = {
        'model.arch.embed_dim': 12, 'model.arch.depth': 4, 'model.arch.num_heads': 3, 'model.arch.num_classes': 3,
        'model.data_preprocessor.mixup.num_classes': 3, 'train_dataloader.batch_size': 8,
        'train_dataloader.num_workers': 2, 'val_dataloader.batch_size': 8, 'val_dataloader.num_workers': 0,
        'val_dataloader.persistent_workers': False, 'test_dataloader.num_workers': 0,
        'test_dataloader.persistent_workers': False, 'train_dataloader.persistent_workers': False,
        'train_dataloader.pin_memory': False, 'val_dataloader.pin_memory': False, 'test_dataloader.pin_memory': False,
        'log_level': 'WARNING', 'experiment_name': str(work_dir), **more}
    return arguments(f'configs/{config}', *(f'{k}={v}' for k, v in options.items()), work_dir=str(work_dir))


def imagenet(data, size: int, patch: int) -> dict:
    return {
        'train_dataloader.dataset.root': data / 'train', 'val_dataloader.dataset.root': data / 'val',
        'test_dataloader.dataset.root': data / 'val', 'model.arch.img_size': size, 'model.arch.patch_size': patch,
        **{f'{loader}_dataloader.dataset.pipeline.0.input_size': size for loader in ('train', 'val', 'test')}}


def result(folder) -> dict:
    return json.loads((folder / 'result.json').read_text())


PHASES = {f'train_cfg.phases.{phase}.epochs': 2 for phase in ('meta', 'module', 'finetune')}
WARMUP = {'param_scheduler.0.end': 1, 'param_scheduler.1.begin': 1}


def test_imagenet_from_the_meta_model_to_the_high_resolution(data, tmp_path):
    incub, high = tmp_path / 'incub', tmp_path / 'high'
    assert train(shrink(data, 'imagenet/vit_b_incub.py', incub, **imagenet(data, 32, 8), **PHASES, **WARMUP)) == 0
    phases = {phase['name']: phase for phase in result(incub)['phases']}
    assert list(phases) == ['meta', 'module_0', 'module_1', 'module_2', 'module_3', 'assembled', 'finetune']
    assert phases['meta']['images'] == 64  # 2 epochs of 36 // 8 * 8
    assert {'accuracy/top1', 'accuracy/top5'} <= set(result(incub)['metrics'])
    last = incub / 'weights/finetune_last.safetensors'
    args = shrink(data, 'imagenet/vit_b_384_incub.py', high, **imagenet(data, 48, 8), **{
        'train_cfg.max_epochs': 1, 'model.init_cfg.checkpoint': last})
    assert train(args) == 0
    weights, before = load_file(high / 'weights/e2e_last.safetensors'), load_file(last)
    assert weights['pos_embed'].shape == (1, 37, 12) and before['pos_embed'].shape == (1, 17, 12)
    key = 'blocks.3.mlp.fc2.weight'  # lr 5e-6: it began as what was loaded
    assert not torch.equal(weights[key], before[key]) and torch.allclose(weights[key], before[key], atol=1e-4)
    assert result(high)['weights']['path'] == str(last)


def test_cifar100_trains_and_its_checkpoint_tests_the_same(data, tmp_path):
    roots = {f'{loader}_dataloader.dataset.root': data / 'cifar100' / split
             for loader, split in (('train', 'train'), ('val', 'test'), ('test', 'test'))}
    args = shrink(data, 'cifar100/deit_t_32_e2e.py', tmp_path, **roots, **WARMUP, **{
        'train_cfg.max_epochs': 3, 'train_cfg.val_interval': 3})
    assert train(args) == 0
    assert result(tmp_path)['phases'][0]['images'] == 96 and result(tmp_path)['data']['train_size'] == 36
    args.checkpoint, args.work_dir = str(tmp_path / 'weights/e2e_last.safetensors'), str(tmp_path / 'test')
    assert run_test(args) == 0
    tested = json.loads(next((tmp_path / 'test').glob('*/*.json')).read_text())
    assert tested['accuracy/top1'] == pytest.approx(result(tmp_path)['metrics']['accuracy/top1'])
