"""A detector and a segmentor of the demo, shortened, through the tools: train, test, predictions, pictures."""
import json

import pytest
import torch

from mmincubation.checkpoints import write_tensors
from mmincubation.demo.data import write_demo_data
from mmincubation.models import VisionTransformer
from tests.helpers.forked import Run
from tests.helpers.paths import ROOT
from tests.helpers.tools import refused, tool
from tests.recovery.test_data_errors import skipped, stops

ARCH = dict(embed_dim=64, depth=24, num_heads=2, patch_size=8, img_size=32)
PATHS = dict(
    maskrcnn="ann_file='annotations/instances_{split}.json', data_prefix=dict(img='{split}/img/')",
    upernet="data_prefix=dict(img_path='{split}/img', seg_map_path='{split}/seg')")
METRICS = dict(maskrcnn='coco/bbox_mAP', upernet='mIoU')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    write_demo_data(folder / 'demo', cls_train=10, cls_val=10, scenes_train=8, scenes_val=2)
    torch.manual_seed(0)
    write_tensors(folder / 'vit.safetensors', VisionTransformer(dict(ARCH, num_classes=10)).state_dict(),
                  dict(kind='vit', arch=dict(ARCH)))
    return folder


def short_config(task: str, data) -> str:
    """The demo's config with two iterations, on the small data."""
    root = data / 'demo/scenes'
    loader = f'{{mode}}_dataloader = dict(dataset=dict(data_root={str(root)!r}, {PATHS[task]}))\n'
    loaders = ''.join(loader.format(mode=mode, split=split)
                      for mode, split in (('train', 'train'), ('val', 'val'), ('test', 'val')))
    metric = f"val_evaluator = test_evaluator = dict(ann_file={str(root / 'annotations/instances_val.json')!r})\n"
    path = data / f'{task}.py'
    path.write_text(
        f"_base_ = {str(ROOT / f'configs/demo/{task}_vit_demo_incub_grow.py')!r}\n{loaders}"
        f"{metric if task == 'maskrcnn' else ''}"
        f"model = dict(backbone=dict(init_cfg=dict(checkpoint={str(data / 'vit.safetensors')!r})))\n"
        "train_cfg = dict(max_iters=2, val_interval=2)\n"
        "param_scheduler = [dict(type='ConstantLR', factor=1.0, by_epoch=False)]\n"
        "default_hooks = dict(checkpoint=dict(interval=2), visualization=dict(interval=1))\n")
    return str(path)


@pytest.mark.parametrize('task', ['maskrcnn', 'upernet'])
def test_train_and_test(task, data):
    config, work_dir = short_config(task, data), data / task
    done = tool('train.py', config, '--work-dir', work_dir)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((work_dir / 'result.json').read_text())
    assert METRICS[task] in result['metrics'] and result['pictures']
    assert '100.0 %' in result['weights']['coverage'] or '99.9 %' in result['weights']['coverage']
    done = tool('test.py', config, work_dir / 'iter_2.pth', '--work-dir', data / 'tested',
                '--out', data / f'{task}.pkl', '--show-dir', data / f'{task}_shown')
    assert done.returncode == 0, done.stderr[-3000:]
    assert (data / f'{task}.pkl').stat().st_size and len(list((data / f'{task}_shown').rglob('*.png'))) == 2
    same = tool('compare.py', data / 'tested', data / 'tested')
    assert same.returncode == 0 and 'A and B have the same results for every image' in same.stdout
    assert 'tta_model' in refused(tool('test.py', config, work_dir / 'iter_2.pth', '--tta'))


@pytest.mark.parametrize('task', ['maskrcnn', 'upernet'])
def test_a_bad_sample_is_skipped_and_said_so(task, data, tmp_path):
    config = short_config(task, data)
    path = data / 'demo/scenes/train/img/00002.png'
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])
    options = ('--cfg-options', 'train_dataloader.num_workers=2')
    try:
        run = Run(tmp_path / 'out', 'train', config, '--work-dir', tmp_path / 'skip', *options, 'data_errors=skip')
        assert run.code() == 0, run.text()[-3000:]
        [entry] = skipped(tmp_path / 'skip')['first']
        assert entry['index'] == 2 and f'{path}: truncated image' in entry['fault']
        assert f'{path}: truncated image' in stops(tmp_path, config, '--work-dir', tmp_path / 'raise', *options)
    finally:
        path.write_bytes(content)
