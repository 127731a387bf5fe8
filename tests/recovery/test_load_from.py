"""A run begins from the weights of another: all of them, or all but what is named."""
import json
import re
import warnings
from argparse import Namespace
from copy import deepcopy
from functools import cache

import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config

from mmincubation.check.run import check
from mmincubation.checkpoints import CheckpointError, read_tensors, sha256_of, write_tensors
from mmincubation.config.load import load_config
from mmincubation.engine import launch
from mmincubation.models import ViTClassifier
from mmincubation.models.on_meta import build_for_shapes, classes_in_model
from mmincubation.recovery.load_from import other_classes, select_weights
from mmincubation.registry import dicts_in
from tests.helpers import toy
from tests.helpers.paths import ROOT
from tests.helpers.weight_files import write_file

UPERNET = ['decode_head.conv_seg', 'auxiliary_head.conv_seg']
MASKRCNN = ['roi_head.bbox_head.fc_cls', 'roi_head.bbox_head.fc_reg', 'roi_head.mask_head.conv_logits']
DINO = [f'bbox_head.cls_branches.{i}' for i in range(7)] + ['dn_query_generator.label_embedding']
HEADS = {  # config -> what depends on the number of classes
    'demo/upernet_vit_demo_scratch.py': UPERNET,
    'demo/maskrcnn_vit_demo_scratch.py': MASKRCNN,
    'demo/vit_demo_e2e.py': ['vit.head'],
    'demo/vit_demo_incub.py': ['target.head', 'meta.head'],
    'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py': ['bbox_head.retina_cls'],
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py': DINO,
    'mmseg::segformer/segformer_mit-b0_8xb2-160k_ade20k-512x512.py': ['decode_head.conv_seg'],
}


@cache
def read(name: str) -> Config:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return get_config(name) if '::' in name else load_config(ROOT / 'configs' / name)


def config(name: str, classes: int | None = None, **more) -> Config:
    """A config of ours or of the MM packages with fewer blocks, and with another number of classes."""
    cfg = deepcopy(read(name))
    own = classes_in_model(cfg)
    for place, node in dicts_in(cfg.model, 'model'):
        if classes and node.get('num_classes') == own:
            node['num_classes'] = classes
        if place.endswith('.arch'):
            node['depth'] = 4
        if 'out_indices' in node and 'arch' in node:
            node |= dict(out_indices=(0, 1, 2, 3) if 'EncoderDecoder' == cfg.model.type else (3, ), global_blocks=(3, ))
    cfg.merge_from_dict(more)
    return cfg


@cache
def model(name: str, classes: int):
    return build_for_shapes(config(name, classes))


def state(name: str, classes: int) -> dict:
    return dict(model(name, classes).state_dict())


@pytest.mark.parametrize('name', HEADS)
def test_the_layers_that_depend_on_classes_are_found(name):
    own, file = state(name, 4), state(name, 7)
    assert other_classes(own, file, config(name, 4)) == (7, 4, HEADS[name])
    assert other_classes(own, file, config(name, 4), HEADS[name]) is None  # nothing else differs
    key = next(iter(own))
    other = torch.empty(3, *own[key].shape, device='meta')
    assert other_classes(own, file | {key: other}, config(name, 4)) is None
    assert other_classes(own, file | {'more': other}, config(name, 4)) is None
    assert other_classes(own, own, config(name, 4)) is None


def load(name: str, content: dict, tmp_path, classes=None, **more) -> dict:
    """What `load_from` gives a model of 4 classes; the content becomes what is loaded."""
    path = tmp_path / 'run.pth'
    torch.save({}, path)
    return select_weights(model(name, 4), content, config(name, 4, load_from=str(path), **more), classes)


NAME = 'demo/upernet_vit_demo_scratch.py'


def test_what_is_named_begins_anew_and_the_rest_is_strict(tmp_path):
    file = state(NAME, 7)
    with pytest.raises(CheckpointError, match=r'run.pth has 7 classes and the model 4; all else fits.*set '
                       r"load_from_fresh = \['decode_head.conv_seg', 'auxiliary_head.conv_seg'\]"):
        load(NAME, dict(state_dict=file), tmp_path)
    with pytest.raises(CheckpointError, match=r"set load_from_fresh = \['auxiliary_head', 'decode_head.conv_seg'\]"):
        load(NAME, dict(state_dict=file), tmp_path, load_from_fresh=['auxiliary_head'])
    content = dict(state_dict=file, meta={})
    report = load(NAME, content, tmp_path, load_from_fresh=UPERNET)
    assert report['sha256'] == sha256_of(tmp_path / 'run.pth') and report['path'] == str(tmp_path / 'run.pth')
    assert f'{len(file) - 4}/{len(file)} keys, 99.' in report['coverage']
    assert 'fresh: decode_head.conv_seg.weight' in report['coverage']
    assert content['state_dict'].keys() == {k for k in file if 'conv_seg' not in k}
    broken = {k: v for k, v in file.items() if k != 'backbone.pos_embed'}
    with pytest.raises(CheckpointError, match='1 missing: backbone.pos_embed.*name in load_from_fresh the layers'):
        load(NAME, broken, tmp_path, load_from_fresh=UPERNET)


@pytest.mark.parametrize('wrap', [
    lambda s: s, lambda s: dict(state_dict=s), lambda s: {f'module.{k}': v for k, v in s.items()},
    lambda s: dict(state_dict={f'module._orig_mod.{k}': v for k, v in s.items()}, optimizer={})])
def test_bare_and_wrapped_weights_of_the_whole_model(wrap, tmp_path):
    content = wrap(state(NAME, 4))
    assert '100.0 %' in load(NAME, content, tmp_path)['coverage']
    assert content['state_dict'].keys() == state(NAME, 4).keys()


def test_what_only_the_file_has_may_be_left_out(tmp_path):
    file = state(NAME, 4) | {'extra_head.conv.weight': torch.empty(3)}
    with pytest.raises(CheckpointError, match='1 unexpected: extra_head.conv.weight'):
        load(NAME, file, tmp_path)
    content = dict(file)
    assert 'dropped by name: extra_head.conv.weight' in load(NAME, content, tmp_path, load_from_fresh=['extra_head'])[
        'coverage']
    assert 'extra_head.conv.weight' not in content['state_dict']


def test_a_name_that_names_nothing(tmp_path):
    with pytest.raises(CheckpointError, match="'decode_head.conv_sag' is no layer of the model or of .*"
                       "nearest: 'decode_head.conv_seg'"):
        load(NAME, state(NAME, 4), tmp_path, load_from_fresh=['decode_head.conv_sag'])


@pytest.mark.parametrize('key', ['classes', 'CLASSES'])
def test_as_many_classes_of_other_names(key, tmp_path):
    content = dict(state_dict=state(NAME, 4), meta=dict(dataset_meta={key: tuple('abcd')}))
    load(NAME, deepcopy(content), tmp_path, ('a', 'b', 'c', 'd'))
    with pytest.raises(CheckpointError, match=r"other classes: class 1 is 'b' there, 'c' here. Set load_from_fresh = "
                       r"\['decode_head.conv_seg', 'auxiliary_head.conv_seg'\]"):
        load(NAME, deepcopy(content), tmp_path, ('a', 'c', 'b', 'd'))
    assert '100.0 %' in load(NAME, deepcopy(content), tmp_path, tuple('acbd'), load_from_fresh=[])['coverage']


@pytest.mark.parametrize('name', ['timm.pth', 'deit.pth', 'hf.safetensors', 'mmpretrain.pth'])
@pytest.mark.parametrize('kind, says', [
    ('demo/maskrcnn_vit_demo_scratch.py', r'load_from takes a whole MaskRCNN: give it as model.backbone.init_cfg = '),
    ('demo/vit_demo_e2e.py', r"a whole ViTClassifier: give it as model.init_cfg = dict\(type='Pretrained', "
     r"checkpoint='[^']*'\) with fresh=\('head', \) in it"),
    ('demo/vit_demo_incub.py', 'no part of the IncubationModel begins from such a file')])
def test_a_vits_file_is_told_where_it_belongs(name, kind, says, tmp_path):
    path, _ = write_file(tmp_path, name)
    with pytest.raises(CheckpointError, match=f'{path.name} holds a ViT alone .format .*{says}') as error:
        select_weights(model(kind, 4), read_tensors(path)[0], config(kind, 4, load_from=str(path)))
    assert '\n' not in str(error.value)


def test_a_file_of_something_else(tmp_path):
    with pytest.raises(CheckpointError, match='run.pth is no checkpoint of the EncoderDecoder, its first keys are odd'):
        load(NAME, dict(odd=torch.zeros(2), keys=3), tmp_path)


# --- whole runs of a classifier

@pytest.fixture(scope='module')
def run(tmp_path_factory):
    """A run of five classes, and a config of three that begins from it."""
    folder = tmp_path_factory.mktemp('load_from')
    toy.write_images(folder / 'images')
    model = ViTClassifier(dict(toy.ARCH, num_classes=5))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'five.pth')
    cfg = toy.e2e_config(folder / 'images', folder / 'run', load_from=str(folder / 'five.pth'))
    cfg.optim_wrapper.optimizer.lr, cfg.param_scheduler = 0., []
    cfg.dump(folder / 'plain.py')
    cfg.load_from_fresh = ['vit.head']
    cfg.dump(folder / 'fresh.py')
    return folder, model


def problems(path) -> list[str]:
    args = Namespace(gpus=1, img_per_s=None, full=False, work_dir=None)
    return [str(problem) for problem in check(load_config(path), 'toy.py', args).problems]


def test_check_and_train_agree(run, capsys):
    folder, model = run
    says = 'five.pth has 5 classes and the model 3; all else fits. To begin the layers that depend on classes anew ' \
           "and load the rest, set load_from_fresh = ['vit.head']"
    assert launch.train(toy.arguments(folder / 'plain.py')) == 2 and says in capsys.readouterr().err
    assert says in problems(folder / 'plain.py')[0] and problems(folder / 'fresh.py') == []
    assert launch.train(toy.arguments(folder / 'fresh.py')) == 0, capsys.readouterr().err
    own = torch.load(folder / 'run/epoch_2.pth', weights_only=False)['state_dict']
    for key, value in model.state_dict().items():  # at lr 0 nothing moves
        assert torch.equal(own[key], value) == ('head' not in key), key
    weights = json.loads((folder / 'run/result.json').read_text())['weights']
    assert weights['path'] == str(folder / 'five.pth')
    assert 'fresh: vit.head.weight, vit.head.bias' in weights['coverage']
    (folder / 'run/epoch_2.pth').unlink()
    assert launch.train(toy.arguments(folder / 'fresh.py', resume='auto')) == 0, capsys.readouterr().err
    assert json.loads((folder / 'run/result.json').read_text())['weights'] == weights  # also when resumed
    assert launch.test(toy.arguments(folder / 'plain.py', checkpoint=str(folder / 'five.pth'))) == 2
    assert 'has 5 classes and the model 3; all else fits. Test it with the config' in capsys.readouterr().err


@pytest.mark.parametrize('option, says', [
    ('load_from_fresh=head', "load_from_fresh='head': give a list of layers"),
    ('load_from=None', 'load_from_fresh: there is no load_from whose layers these are')])
def test_a_list_without_sense(run, option, says, capsys):
    assert launch.train(toy.arguments(run[0] / 'fresh.py', option)) == 2 and says in capsys.readouterr().err


@pytest.mark.parametrize('command', ['load_from', 'test', 'resume'])
@pytest.mark.parametrize('kind, says', [
    ('gone', 'no such weight file|does not exist'), ('folder', 'no such weight file|a folder'),
    ('empty', 'empty|truncated'), ('cut', 'truncated'), ('text', 'no weight file'),
    ('list', 'holds a list'), ('weights', 'is no checkpoint of the ViTClassifier|no optimizer, meta|no ViT'),
    ('safetensors', 'is no checkpoint of the ViTClassifier|no state_dict, optimizer, meta|no ViT')])
def test_whatever_is_wrong_with_a_file_is_one_line(run, command, kind, says, tmp_path, capsys):
    folder, model = run
    path = tmp_path / ('x.safetensors' if kind == 'safetensors' else 'x.pth')
    torch.save([1] if kind == 'list' else dict(state_dict=dict(odd=torch.zeros(2))), tmp_path / 'x.pth')
    content = dict(empty=b'', text=b'hello, world', cut=path.read_bytes()[:-30]) if path.exists() else {}
    if kind in ('gone', 'folder'):
        path.unlink()
    if kind == 'folder':
        path.mkdir()
    if kind in content:
        path.write_bytes(content[kind])
    if kind == 'safetensors':
        write_tensors(path, dict(odd=torch.zeros(2)), {})
    config, work_dir = folder / 'plain.py', str(tmp_path / 'work')
    args = dict(load_from=dict(), test=dict(checkpoint=str(path)), resume=dict(resume=str(path)))[command]
    options = [f'load_from={path}'] if command == 'load_from' else []
    tool = launch.test if command == 'test' else launch.train
    assert tool(toy.arguments(config, *options, work_dir=work_dir, **args)) == 2
    said = capsys.readouterr().err
    assert said.startswith(('error: ', 'load_from: ')) and said.count('\n') == 1 and str(path) in said, said
    assert re.search(says, said), said
