"""Mistakes in configs are named before anything is built, and right configs pass."""
import subprocess
import sys
from pathlib import Path

import mmdet
import mmseg
import pytest

from mmincubation.config.load import load_config
from mmincubation.config.problems import refuse
from mmincubation.errors import ConfigError
from tests.helpers.paths import ROOT

BASE = '''
dataset_type = 'mmincubation.ImageFolder'
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
                        collate_fn=dict(type='default_collate'), dataset=dict(type=dataset_type, root='images'))
'''
LEAF = '''
_base_ = ['./base.py']
arch = dict(embed_dim=8, depth=2, num_heads=1, patch_size=4, img_size=8, num_classes=2)
model = dict(type='mmincubation.ViTClassifier', arch=arch)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1)
_optimizer = dict(type='AdamW', lr=1e-3, weight_decay=0.1)
optim_wrapper = dict(type='OptimWrapper', optimizer=_optimizer, paramwise_cfg=dict(norm_decay_mult=0.))
param_scheduler = [dict(type='LinearLR', start_factor=1e-3, by_epoch=False, end=60)]
default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=1))
env_cfg = dict(cudnn_benchmark=False)
'''
INCUBATION = '''
train_cfg = dict(type='mmincubation.IncubationLoop', phases=dict(
    meta=dict(epochs=1), module=dict(epochs=1, optim_wrapper=dict(optimizer=dict(lr=1.))), finetune=dict(epochs=1)))
model = dict(type='mmincubation.IncubationModel', arch=arch, modules=2)
'''
OPTIM = '''
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3), constructor='mmincubation.ViTOptimWrapperConstructor',
                     paramwise_cfg=dict(layer_decay=0.9, no_decay=['pos'], custom_keys=dict(head=dict(lr_mult=2.))))
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes `configs/run.py`, a right config with more lines at its end, in a folder that becomes the working one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'images').mkdir()
    (tmp_path / 'configs/base.py').write_text(BASE)

    def write_config(more: str = '') -> str:
        (tmp_path / 'configs/run.py').write_text(LEAF + more)
        return 'configs/run.py'

    return write_config


def problems(path: str, options: dict | None = None, mode: str = 'train') -> list[str]:
    """Lines of the error, none if the config is right."""
    try:
        refuse(load_config(path, options), mode)
    except ConfigError as error:
        return str(error).splitlines()
    return []


def test_right_configs_pass(write):
    assert problems(write()) == []
    assert problems(write(INCUBATION)) == []
    assert problems(write(OPTIM)) == []
    assert problems(write(), {'train_cfg.max_epochs': 3, 'load_from': None, 'resume': False}) == []


@pytest.mark.parametrize('name', ['configs/runn.py', 'config/run.py', 'run.py'])
def test_missing_config_names_the_nearest(write, name):
    write()
    with pytest.raises(ConfigError, match=rf'^config {name} does not exist \(nearest: configs/run.py\)$'):
        load_config(name)
    with pytest.raises(ConfigError, match='^config configs is a folder$'):
        load_config('configs')


@pytest.mark.parametrize('more, message', [
    ('x = (\n', r"^configs/run.py:11: '\(' was never closed$"),
    ('x = undefined\n', r"^configs/run.py:11: NameError: name 'undefined' is not defined$"),
    ("custom_imports = dict(imports=['no_such'])\n", r"^configs/run.py: custom_imports: No module named 'no_such'$"),
])
def test_broken_config_names_file_and_line(write, more, message):
    with pytest.raises(ConfigError, match=message):
        load_config(write(more))


@pytest.mark.parametrize('content, said', [
    ('# caf\xe9'.encode('latin-1'), 'is not UTF-8 (byte 0xe9 in line 1)'),
    ('x = 1\n# \u4e2d'.encode('gbk'), 'is not UTF-8 (byte 0xd6 in line 2)'),
    ('x = 1'.encode('utf-16'), 'is not UTF-8 (byte 0xff in line 1)'),
    ('x = 1'.encode('utf-16-le'), 'has null bytes (the first in line 1)'),
    ('x = 1'.encode('utf-8-sig'), 'begins with a byte order mark')])
def test_other_encodings_are_named_with_the_remedy(write, tmp_path, content, said):
    path = write()
    for file in ('run.py', 'base.py'):
        (tmp_path / 'configs/run.py').write_text("_base_ = './base.py'")
        (tmp_path / f'configs/{file}').write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            load_config(path)
        assert str(raised.value) == f'configs/{file}: {said}; save it as UTF-8 without a byte order mark'


def test_broken_base_names_file_and_line(write, tmp_path):
    path = write()
    (tmp_path / 'configs/base.py').write_text('x = 1\ny = x +\n')
    with pytest.raises(ConfigError, match='^configs/base.py:2: invalid syntax$'):
        load_config(path)
    (tmp_path / 'configs/base.py').write_text("_base_ = './run.py'\n")
    with pytest.raises(ConfigError, match='^configs/run.py: has itself as its _base_$'):
        load_config(path)
    (tmp_path / 'configs/base.py').rename('configs/bases.py')
    with pytest.raises(ConfigError, match='^configs/run.py:2: base configs/base.py does not exist .*bases.py'):
        load_config(path)


@pytest.mark.parametrize('more, expected', [
    ('param_schedulers = []', "param_schedulers: nothing reads this top-level key (nearest: 'param_scheduler')"),
    ('gadget = 3', 'gadget: nothing reads this top-level key: remove it, or begin its name with _'),
    ('train_cfg = dict(_delete_=True, by_epoch=True, max_epoch=1)', 'train_cfg.max_epoch: EpochBasedTrainLoop has no '
     "such key (nearest: 'max_epochs')"),
    ("train_cfg = dict(type='EpochBasedTrainLoop')", 'train_cfg.max_epochs is missing: EpochBasedTrainLoop needs it'),
    ("train_cfg = dict(type='IncubationLoop')", "train_cfg.type: 'IncubationLoop' is not registered under the default "
     "scope 'mmengine' (nearest: 'mmincubation.IncubationLoop')"),
    ("model = dict(type='mmincubation.ViTClasifier')", "model.type: 'mmincubation.ViTClasifier' is not registered "
     "(nearest: 'mmincubation.ViTClassifier')"),
    ("model['drop_path'] = 0.1", "model.drop_path: mmincubation.ViTClassifier has no such key "
     "(nearest: 'drop_path_rate')"),
    ("model = dict(type='mmpretran.X')", "model.type: 'mmpretran.X' needs the package 'mmpretran', which is not "
     "installed (nearest: 'mmpretrain')"),
    ("default_scope = 'mmdett'", "default_scope: 'mmdett' needs the package 'mmdett', which is not installed "
     "(nearest: 'mmdet')"),
    ("optim_wrapper['optimizer']['lrr'] = 1.", "optim_wrapper.optimizer.lrr: AdamW has no such key (nearest: 'lr')"),
    ("optim_wrapper['paramwise_cfg']['norm_decay'] = 1.", 'optim_wrapper.paramwise_cfg.norm_decay: '
     "optim_wrapper.paramwise_cfg has no such key (nearest: 'norm_decay_mult')"),
    (OPTIM + "optim_wrapper['paramwise_cfg'] = dict(layer_decy=0.9)", 'optim_wrapper.paramwise_cfg.layer_decy: '
     "ViTOptimWrapperConstructor has no such key (nearest: 'layer_decay')"),
    (OPTIM + "optim_wrapper['paramwise_cfg'] = dict(custom_keys=dict(head=dict(lr_mul=2.)))",
     "optim_wrapper.paramwise_cfg.custom_keys['head'].lr_mul: a custom key has no such key (nearest: 'lr_mult')"),
    ("optim_wrapper['constructor'] = 'mmincubation.ViTOptimConstructor'", 'optim_wrapper.constructor: '
     "'mmincubation.ViTOptimConstructor' is not registered (nearest: 'mmincubation.ViTOptimWrapperConstructor')"),
    (INCUBATION + OPTIM + "train_cfg['phases']['finetune']['optim_wrapper'] = dict(paramwise_cfg=dict(layer_decay=2))",
     'train_cfg.phases.finetune.optim_wrapper.paramwise_cfg.layer_decay=2: give a number above 0 and at most 1 (1: one '
     'rate for all layers)'),
    ("param_scheduler[0]['begn'] = 1", "param_scheduler.0.begn: LinearLR has no such key (nearest: 'begin')"),
    ("default_hooks['checkpoint']['intervall'] = 1", 'default_hooks.checkpoint.intervall: CheckpointHook has no such '
     "key (nearest: 'interval')"),
    ("env_cfg['cudnn_bench'] = True", "env_cfg.cudnn_bench: env_cfg has no such key (nearest: 'cudnn_benchmark')"),
    ('train_dataloader = dict(num_worker=1)', 'train_dataloader.num_worker: train_dataloader has no such key '
     "(nearest: 'num_workers')"),
    ("train_dataloader = dict(dataset=dict(pipeline=[dict(type='torchvision.transforms.v2.RandomCrop', siz=3)]))",
     'train_dataloader.dataset.pipeline.0.siz: torchvision.transforms.v2.RandomCrop has no such key (nearest: '
     "'size')"),
    (INCUBATION + "train_cfg['phases']['module']['optim_wrapper']['optimizer']['lrr'] = 1.",
     "train_cfg.phases.module.optim_wrapper.optimizer.lrr: AdamW has no such key (nearest: 'lr')"),
    (INCUBATION + "train_cfg['recipee'] = 'clean'", 'train_cfg.recipee: mmincubation.IncubationLoop has no such key '
     "(nearest: 'recipe')"),
])
def test_one_mistake_gives_one_line(write, more, expected):
    assert problems(write(more)) == [expected]


def test_all_mistakes_at_once(write):
    more = "load_form = 'x.pth'\nload_from = 'y.pth'\nmodel['drop_path'] = 1\ntrain_dataloader = dict(pin_mem=True)\n"
    places = [line.split(':')[0] for line in problems(write(more))]
    assert sorted(places) == ['load_form', 'load_from', 'model.drop_path', 'train_dataloader.pin_mem']


@pytest.mark.parametrize('option, expected', [
    ('max_epohcs', "max_epohcs: nothing reads this top-level key (nearest: 'train_cfg.max_epochs')"),
    ('train_cgf.max_epochs', "train_cgf: nothing reads this top-level key (nearest: 'train_cfg')"),
    ('train_cfg.max_epoch', "train_cfg.max_epoch: EpochBasedTrainLoop has no such key (nearest: 'max_epochs')"),
    ('arch.depth', '--cfg-options arch.depth: arch is a helper variable of the config, changing it has no effect'),
    ('param_scheduler.7.end', '--cfg-options param_scheduler.7.end: param_scheduler has 1 items, and options change'),
])
def test_options_that_cannot_be(write, option, expected):
    found = problems(write(), {option: 1})
    assert len(found) == 1 and found[0].startswith(expected)


def test_dumped_config_is_right_and_its_near_misses_are_not(write):
    cfg = load_config(write('train_pipeline = []\ntrain_dataloader = dict(dataset=dict(pipeline=train_pipeline))'))
    cfg.dump('dumped.py')
    assert 'train_pipeline' in Path('dumped.py').read_text()
    assert problems('dumped.py') == []
    assert len(problems('dumped.py', {'max_epochs': 3})) == 1
    Path('dumped.py').write_text(Path('dumped.py').read_text() + 'param_schedulers = []\n')
    assert len(problems('dumped.py')) == 1


COCO = '''
default_scope = 'mmdet'
coco = dict(type='CocoDataset', data_root='data/coco', ann_file='annotations/{0}.json', data_prefix=dict(img='{0}/'),
            metainfo=dict(classes=('cat', 'dog')))
train_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=2, dataset=coco))
test_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='mmincubation.ImageFolder', root='data/demo/cls/val'), collate_fn=dict(type='default_collate'))
val_evaluator = dict(type='CocoMetric', ann_file='data/coco/annotations/val.json')
test_evaluator = dict(type='mmincubation.Accuracy')
val_cfg = test_cfg = dict()
val_dataloader = dict(sampler=dict(type='DefaultSampler', shuffle=False), dataset=dict(
    type='mmincubation.ImageFolder', root='images'), collate_fn=dict(type='default_collate'))
'''


def test_missing_data(write, tmp_path):
    path = write(COCO.format('train'))
    assert problems(path) == ['train_dataloader.dataset.dataset.data_root: data/coco does not exist; put the data '
                              'there, or change this key']
    (tmp_path / 'data/coco').mkdir(parents=True)
    missing = [line.split(' does not')[0] for line in problems(path)]
    assert missing == ['train_dataloader.dataset.dataset.ann_file: data/coco/annotations/train.json',
                       'train_dataloader.dataset.dataset.data_prefix.img: data/coco/train/',
                       'val_evaluator.ann_file: data/coco/annotations/val.json']
    assert problems(path, mode='test') == ['test_dataloader.dataset.root: data/demo/cls/val does not exist; run '
                                           '`python tools/make_demo_data.py`, or change this key']


@pytest.mark.parametrize('reader, root, remedy', [
    ('ImageFolder', 'data/imagenet/train', 'prepare it as docs/tasks/imagenet.md says'),
    ('HFImages', 'data/cifar100/train', """run `python -c "from datasets import load_dataset as l; """
     """l('uoft-cs/cifar100').save_to_disk('data/cifar100')"`""")])
def test_missing_classification_data_come_with_what_gets_them(write, reader, root, remedy):
    more = f"train_dataloader = dict(dataset=dict(type='mmincubation.{reader}', root='{root}'))"
    assert problems(write(more)) == [
        f'train_dataloader.dataset.root: {root} does not exist; {remedy}, or change this key']


def test_missing_weights_name_the_config_that_makes_them(write):
    path = write("model['init_cfg'] = dict(type='Pretrained', checkpoint='work_dirs/run/w.pth')\n"
                 "load_from = 'gone.pth'")
    place = 'model.init_cfg.checkpoint: work_dirs/run/w.pth'
    assert problems(path) == [f'{place} does not exist; make it first: `python tools/train.py configs/run.py`',
                              'load_from: gone.pth does not exist; give the path of an existing file']
    assert [line for line in problems(path, mode='test') if 'does not exist' in line] == []
    assert problems(write("load_from = 'https://example.org/x.pth'")) == []


ZOO = {package: Path(package.__path__[0]) / '.mim/configs' for package in (mmdet, mmseg)}
STOCK = [ZOO[package] / name for package, names in {
    mmdet: ('albu_example/mask-rcnn_r50_fpn_albu-1x_coco.py', 'dcn/mask-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py',
            'detr/detr_r50_8xb2-150e_coco.py', 'dino/dino-4scale_r50_8xb2-12e_coco.py',
            'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'faster_rcnn/faster-rcnn_r50_fpn_soft-nms_1x_coco.py',
            'fpg/mask-rcnn_r50_fpg_crop640-50e_coco.py', 'htc/htc_r50_fpn_1x_coco.py',
            'mask2former/mask2former_r50_8xb2-lsj-50e_coco.py', 'mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
            'mask_rcnn/mask-rcnn_x101-32x4d_fpn_ms-poly-3x_coco.py', 'panoptic_fpn/panoptic-fpn_r50_fpn_1x_coco.py',
            'retinanet/retinanet_r50_fpn_1x_coco.py', 'ssd/ssd300_coco.py', 'vfnet/vfnet_r50_fpn_1x_coco.py',
            'strong_baselines/mask-rcnn_r50_fpn_rpn-2conv_4conv1fc_syncbn-all_lsj-100e_coco.py',
            'swin/mask-rcnn_swin-t-p4-w7_fpn_amp-ms-crop-3x_coco.py', 'yolox/yolox_s_8xb8-300e_coco.py'),
    mmseg: ('beit/beit-base_upernet_8xb2-160k_ade20k-640x640.py', 'san/san-vit-b16_coco-stuff164k-640x640.py',
            'deeplabv3/deeplabv3_r50-d8_4xb4-80k_ade20k-512x512.py',
            'maskformer/maskformer_swin-s_upernet_8xb2-160k_ade20k-512x512.py',
            'segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py',
            'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
            'unet/unet-s5-d16_fcn_4xb4-160k_cityscapes-512x1024.py',
            'upernet/upernet_r101_4xb2-40k_cityscapes-512x1024.py', 'upernet/upernet_r50_4xb4-160k_ade20k-512x512.py',
            'vit/vit_vit-b16_mln_upernet_8xb2-80k_ade20k-512x512.py'),
}.items() for name in names]


@pytest.mark.parametrize('path', STOCK, ids=lambda path: path.stem)
def test_no_false_alarm_on_stock_configs(path):
    """What keeps one from running here is a package or compiled op that is not there, or SyncBN in one process."""
    true = ('does not exist; ', 'is not installed', 'Default process group has not been initialized',
            'needs compiled ops of mmcv', 'AmpOptimWrapper needs a GPU')
    assert [line for line in problems(str(path)) if not any(words in line for words in true)] == []


def test_the_zoos_own_mistakes_are_found():
    """mmdet would fail on these when it builds them."""
    for name, place in [('solov2/solov2-light_r50_fpn_ms-3x_coco.py', 'train_cfg.by_epoch'),
                        ('pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py', 'val_evaluator.eval_mode')]:
        assert any(line.startswith(place) for line in problems(str(ZOO[mmdet] / name)))


def test_our_configs_are_right():
    root = ROOT / 'configs'
    paths = [p for p in sorted(root.rglob('*.py')) if '_base_' not in p.parts]
    assert len(paths) >= 8
    for path in paths:
        assert [line for line in problems(str(path)) if 'does not exist; ' not in line] == [], path


def test_missing_config_needs_no_heavy_import(tmp_path):
    """A wrong path must not wait for torch."""
    code = ('import sys; from mmincubation.config.load import *\n'
            'try: load_config("gone.py")\nexcept ConfigError as e: print(e)\n'
            'print("torch" in sys.modules, "mmengine" in sys.modules)')
    root = ROOT
    done = subprocess.run([sys.executable, '-c', code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == 'config gone.py does not exist\nFalse False\n'
