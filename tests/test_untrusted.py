"""Files from strangers: live payloads on every way in, none of which may run, and none of which may read elsewhere."""
import http.server
import json
import pickle
import struct
import threading
import zipfile
from argparse import Namespace
from functools import partial
from pathlib import Path

import mmengine
import pytest
import torch
import yaml
from mmengine.dataset import BaseDataset
from mmengine.model import BaseModule
from mmengine.runner import CheckpointLoader, checkpoint
from torch.utils.model_zoo import load_url

from mmincubation.check.run import main as check_tool
from mmincubation.checkpoints import CheckpointError, inspect_weights, read_tensors, write_tensors
from mmincubation.checkpoints.convert import convert
from mmincubation.config.data_only import read_data_only
from mmincubation.config.load import load_config
from mmincubation.downstream import ViTBackbone
from mmincubation.engine import launch, loading
from mmincubation.errors import ConfigError
from mmincubation.incubation.assemble import assemble
from mmincubation.models import ViTClassifier
from tests.helpers import toy
from tests.helpers.toy import ARCH, e2e_config, incubation_config


class Live:
    """A pickle that makes a file when it is executed."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, 'w')


@pytest.fixture(autouse=True)
def doors_closed(monkeypatch):
    """As the tools begin; and not even a user's own setting of torch opens a door."""
    read_data_only()
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')


@pytest.fixture(params=['zip.pth', 'legacy.pth', 'pickle.pth', 'pickle.bin', 'pickle.safetensors'])
def evil(tmp_path, request):
    """A weight file with a live payload; it must not have run at the end of the test, and be live."""
    file, ran = tmp_path / request.param, tmp_path / 'executed'
    content = dict(state_dict=Live(ran), meta=dict(epoch=1, iter=4))
    kind = request.param.split('.')[0]
    if kind == 'pickle':
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=kind == 'zip')
    yield file
    assert not ran.exists()
    pickle.loads(file.read_bytes()) if kind == 'pickle' else torch.load(file, weights_only=False)
    assert ran.exists()


def stock_backbone(path) -> None:
    """What a config says of any backbone of mmdet or mmseg."""
    BaseModule(init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights()


READERS = dict(
    read_tensors=read_tensors,
    inspect_weights=inspect_weights,
    convert=lambda path: convert(str(path), path.with_name('new.safetensors')),
    assemble=lambda path: assemble([path, path]),
    vit_backbone=lambda path: ViTBackbone(
        ARCH, (3, ), init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights(),
    vit_classifier=lambda path: ViTClassifier(
        ARCH, init_cfg=dict(type='Pretrained', checkpoint=str(path))).init_weights(),
    stock_backbone=stock_backbone,
    mmengine_load_checkpoint=lambda path: checkpoint.load_checkpoint(torch.nn.Linear(1, 1), str(path)),
    tools_test=lambda path: loading.load_for_test(torch.nn.Linear(1, 1), str(path), read_tensors(path)[0], {}))


@pytest.mark.parametrize('reader', READERS)
def test_a_live_pickle_is_refused_by_every_reader(evil, reader):
    with pytest.raises(CheckpointError, match='nothing was executed|damaged safetensors'):
        READERS[reader](evil)
    assert not evil.with_name('new.safetensors').exists()


def arguments(config, *options, **changes) -> Namespace:
    return toy.arguments(config, *options, **{'allow_changed': True} | changes)


def test_a_live_pickle_is_refused_by_the_tools(evil, images, tmp_path, capsys):
    run = tmp_path / 'run.py'
    e2e_config(images, tmp_path / 'run').dump(run)
    given = dict(type='Pretrained', checkpoint=str(evil))
    e2e_config(images, tmp_path / 'run', model=dict(init_cfg=given)).dump(tmp_path / 'init.py')
    for call in (lambda: launch.train(arguments(run, resume=str(evil))),
                 lambda: launch.train(arguments(run, f'load_from={evil}')),
                 lambda: launch.train(arguments(tmp_path / 'init.py')),
                 lambda: launch.test(arguments(run, checkpoint=str(evil)))):
        assert call() == 2
        error = capsys.readouterr().err
        assert error.startswith('error: ') and error.count('\n') == 1, error
    options = dict(full=False, img_per_s=None, gpus=1, work_dir=None)
    assert check_tool(Namespace(config=str(tmp_path / 'init.py'), cfg_options=None, **options)) == 1
    assert evil.name in capsys.readouterr().out


def test_a_live_pickle_in_weights_dir_is_refused(images, tmp_path, capsys):
    """What other jobs have left for the phase that runs alone."""
    incubation_config(images, tmp_path / 'run').dump(tmp_path / 'run.py')
    weights, ran = tmp_path / 'run/weights', tmp_path / 'executed'
    weights.mkdir(parents=True)
    for name in ('meta', 'module_0', 'module_1'):
        torch.save(dict(state_dict=Live(ran)), weights / f'{name}_last.safetensors')
    for phase in ('module_0', 'finetune'):
        assert launch.train(arguments(tmp_path / 'run.py', f'experiment_name={tmp_path}{phase}', phase=phase)) == 2
        assert 'nothing was executed' in capsys.readouterr().err
    assert not ran.exists()


@pytest.fixture
def address(tmp_path, monkeypatch):
    """Address of a server with a live payload (evil.pth) and with weights (good.pth)."""
    (tmp_path / 'served').mkdir()
    torch.save(dict(state_dict=Live(tmp_path / 'executed')), tmp_path / 'served/evil.pth')
    torch.save(dict(state_dict={'backbone.w': torch.ones(2)}), tmp_path / 'served/good.pth')
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / 'served')
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, 'log_message', lambda *_: None)
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}'
        server.shutdown()


@pytest.mark.parametrize('scheme', ['http', 'torchvision', 'open-mmlab', 'mmcls'])
def test_a_live_pickle_from_an_address_is_refused(address, tmp_path, monkeypatch, scheme):
    for name in ('get_torchvision_models', 'get_external_models', 'get_mmcls_models'):
        monkeypatch.setattr(checkpoint, name, lambda: {n: f'{address}/{n}.pth' for n in ('good', 'evil')})
    good, evil = (f'{address}/{n}.pth' if scheme == 'http' else f'{scheme}://{n}' for n in ('good', 'evil'))
    assert len(CheckpointLoader.load_checkpoint(good)['state_dict']) == 1
    with pytest.raises(CheckpointError if scheme == 'http' else pickle.UnpicklingError, match='open'):
        CheckpointLoader.load_checkpoint(evil)
    assert not (tmp_path / 'executed').exists()
    load_url(f'{address}/evil.pth')
    assert (tmp_path / 'executed').exists()  # what mmengine would do by itself


def test_tags_in_yaml_make_nothing(tmp_path):
    ran = tmp_path / 'executed'
    text = f'model: !!python/object/apply:builtins.open [{ran}, w]\n'
    for name in ('run.yaml', 'run.yml'):
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigError, match='nothing was executed'):
            mmengine.load(tmp_path / name)
        with pytest.raises(ConfigError, match=f'{name}.*python/object/apply'):
            load_config(tmp_path / name)
    assert not ran.exists()
    (tmp_path / 'plain.yaml').write_text('model: {type: x, numbers: [1, 2.5, null, true]}\n')
    assert load_config(tmp_path / 'plain.yaml').model.numbers == [1, 2.5, None, True]
    yaml.load(text, yaml.UnsafeLoader)
    assert ran.exists()


@pytest.mark.parametrize('suffix', ['pkl', 'pickle', 'yaml', 'yml'])
def test_annotations_that_bring_code_are_refused(images, tmp_path, capsys, suffix):
    ran, file = tmp_path / 'executed', tmp_path / f'annotations.{suffix}'
    code = pickle.dumps(Live(ran)) if suffix.startswith('p') else f'!!python/object/apply:open [{ran}, w]'.encode()
    file.write_bytes(code)
    with pytest.raises(ConfigError, match='nothing was executed'):
        BaseDataset(ann_file=str(file))
    cfg = e2e_config(images, tmp_path / 'run')
    cfg.train_dataloader.dataset = dict(type='mmengine.dataset.BaseDataset', ann_file=str(file))
    cfg.dump(tmp_path / 'run.py')
    assert launch.train(arguments(tmp_path / 'run.py')) == 2
    assert 'nothing was executed' in capsys.readouterr().err
    assert not ran.exists()


def bomb_deflated(path: Path) -> None:
    torch.save(dict(state_dict={'w': torch.zeros(1_000_000)}), path.with_suffix('.raw'))
    with zipfile.ZipFile(path.with_suffix('.raw')) as source, zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as sink:
        for record in source.infolist():
            sink.writestr(record.filename, source.read(record))


def bomb_overlapping(path: Path) -> None:
    """A directory that names one record many times over."""
    torch.save(dict(state_dict={'w': torch.zeros(10_000)}), path)
    with zipfile.ZipFile(path, 'a') as archive:
        large = max(archive.filelist, key=lambda record: record.file_size)
        archive.filelist += [large] * 1000
        archive._didModify = True


def bomb_repeated_number(path: Path) -> None:
    torch.save(dict(state_dict={'w': torch.zeros(1).expand(10**12)}), path)


def bomb_without_data(path: Path) -> None:
    torch.save(dict(state_dict={'w': torch.empty(10**12, device='meta')}), path)


@pytest.mark.parametrize('bomb', [bomb_deflated, bomb_overlapping, bomb_repeated_number, bomb_without_data])
def test_a_checkpoint_is_never_larger_than_its_file(tmp_path, bomb):
    bomb(tmp_path / 'bomb.pth')
    assert (tmp_path / 'bomb.pth').stat().st_size < 200_000
    with pytest.raises(CheckpointError, match='its records say|has less data than that'):
        read_tensors(tmp_path / 'bomb.pth')


def test_lists_that_hold_each_other_end(tmp_path):
    nested = [torch.ones(1)]
    for _ in range(200):
        nested = [nested, nested]
    nested.append(nested)
    torch.save(dict(state_dict={'w': torch.ones(1)}, x=nested), tmp_path / 'nested.pth')
    assert read_tensors(tmp_path / 'nested.pth')[0]['state_dict']


@pytest.mark.parametrize('size', [2**63, 10**9, 64])
def test_a_safetensors_header_is_bounded_by_the_file(tmp_path, size):
    (tmp_path / 'bomb.safetensors').write_bytes(struct.pack('<Q', size) + b'{"a": 1}')
    with pytest.raises(CheckpointError, match='damaged safetensors'):
        read_tensors(tmp_path / 'bomb.safetensors')


def test_a_deep_header_is_damaged(tmp_path):
    write_tensors(tmp_path / 'a.safetensors', {'w': torch.ones(1)}, dict(x=1))
    data = (tmp_path / 'a.safetensors').read_bytes()
    size = int.from_bytes(data[:8], 'little')
    head = json.loads(data[8:8 + size])
    head['__metadata__']['mmincubation'] = '[' * 200_000
    text = json.dumps(head).encode()
    (tmp_path / 'a.safetensors').write_bytes(struct.pack('<Q', len(text)) + text + data[8 + size:])
    with pytest.raises(CheckpointError, match='damaged safetensors'):
        read_tensors(tmp_path / 'a.safetensors')
