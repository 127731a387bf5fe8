"""Files from strangers: live payloads on every way in, none of which may run, and none of which may read elsewhere."""
import http.server
import json
import os
import pickle
import shutil
import struct
import threading
import zipfile
from argparse import Namespace
from functools import partial
from pathlib import Path

import mmengine
import numpy as np
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
from mmincubation.datasets.classification import HFImages
from mmincubation.downstream import ViTBackbone
from mmincubation.engine import launch
from mmincubation.engine.config_check import ConfigError, load_config
from mmincubation.engine.data_only import read_data_only
from mmincubation.incubation.assemble import assemble
from mmincubation.leaderboard.board import make_leaderboard
from mmincubation.models import ViTClassifier
from mmincubation.result import ResultError, read_result
from tests import toy
from tests.synthetic_coco import write_coco
from tests.test_leaderboard import put
from tests.toy import ARCH, e2e_config, incubation_config, write_images


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


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp('images')
    write_images(root)
    return root


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
    tools_test=lambda path: launch.load_for_test(torch.nn.Linear(1, 1), str(path)))


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
        assert 'damaged safetensors' in capsys.readouterr().err
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
    with pytest.raises(pickle.UnpicklingError):
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


@pytest.fixture
def split(tmp_path):
    """A folder of save_to_disk."""
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageColumn
    from PIL import Image
    pictures = [Image.fromarray(np.full((8, 8, 3), 60 * i, np.uint8)) for i in range(4)]
    features = Features(image=ImageColumn(), label=ClassLabel(names=['a', 'b']))
    Dataset.from_dict(dict(image=pictures, label=[0, 1, 0, 1]), features=features).save_to_disk(tmp_path / 'split')
    return tmp_path / 'split'


def rewrite_arrow(split: Path, change) -> None:
    import pyarrow as pa
    file = next(split.glob('*.arrow'))
    with pa.OSFile(str(file)) as source:
        table = change(pa.ipc.open_stream(source).read_all())
    with pa.OSFile(str(file), 'wb') as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


EXTENSIONS = ['arrow.py_extension_type', 'pyarrow.py_extension_type', 'datasets.features.features.Array2DExtensionType']


@pytest.mark.parametrize('name', EXTENSIONS)
def test_a_pickle_in_an_arrow_extension_type_is_not_executed(split, tmp_path, name):
    import pyarrow as pa
    ran = tmp_path / 'executed'

    def add(table):
        kind = {b'ARROW:extension:name': name.encode(), b'ARROW:extension:metadata': pickle.dumps(Live(ran))}
        schema = pa.schema([*table.schema, pa.field('more', pa.int64(), metadata=kind)], table.schema.metadata)
        return pa.table([*table.columns, pa.array(range(len(table)))], schema=schema)

    rewrite_arrow(split, add)
    try:
        assert len([HFImages(str(split))[i] for i in range(4)]) == 4
    except ConfigError:
        pass  # refused as a whole, as well
    assert not ran.exists()


def test_features_of_a_split_cannot_name_other_classes(split):
    info = json.loads((split / 'dataset_info.json').read_text())
    info['features']['label'] = dict(_type='Path', _flag='x')
    (split / 'dataset_info.json').write_text(json.dumps(info))
    with pytest.raises(ConfigError):
        HFImages(str(split))


@pytest.mark.parametrize('name', ['../other/data-00000-of-00001.arrow', '{split}/data-00000-of-00001.arrow', 'a/b'])
def test_a_split_names_no_files_elsewhere(split, name):
    shutil.copytree(split, split.parent / 'other')
    state = json.loads((split / 'state.json').read_text())
    state['_data_files'][0]['filename'] = name.format(split=split.parent / 'other')
    (split / 'state.json').write_text(json.dumps(state))
    with pytest.raises(ConfigError, match='state.json names .* not in this folder'):
        HFImages(str(split))


@pytest.mark.parametrize('text', ['{', '[]', '{"_data_files": 3}', '[' * 100_000])
def test_a_broken_state_of_a_split_is_one_line(split, text):
    (split / 'state.json').write_text(text)
    with pytest.raises(ConfigError, match='save_to_disk'):
        HFImages(str(split))


def test_a_row_that_names_a_file_is_refused(split, images):
    """It could show any picture of this machine."""
    import pyarrow as pa
    private = str(images / '0/0.png')

    def names_only(table):
        column = pa.StructArray.from_arrays(
            [pa.array([None] * len(table), pa.binary()), pa.array([private] * len(table))], ['bytes', 'path'])
        return table.set_column(0, table.schema.field(0), column)

    rewrite_arrow(split, names_only)
    with pytest.raises(ConfigError, match=f'row 0 names a file, {private!r}'):
        HFImages(str(split)).read(0)


OUTSIDE = ['../secret', '/etc/secret', 'a/../../secret', 'C:\\secret', 'file:secret', 'a\0b']


@pytest.mark.parametrize('name', OUTSIDE)
@pytest.mark.parametrize('key, suffix', [('pictures', '.png'), ('outputs', '.safetensors')])
def test_a_result_names_no_files_elsewhere(tmp_path, name, key, suffix):
    path = put(tmp_path, 'e2e', 50.)
    result = json.loads(path.read_text())
    file = name + suffix
    result[key] = [file] if key == 'pictures' else [dict(path=file, sha256='a' * 64)]
    path.write_text(json.dumps(result))
    with pytest.raises(ResultError, match=f'{key}.*at or below the folder'):
        read_result(path)
    text, problems, _ = make_leaderboard(tmp_path, tmp_path / 'out')
    assert not text and len(problems) == 1


def test_text_of_a_result_is_text_in_the_tables(tmp_path):
    """Every text of the schema, not only the names."""
    path = put(tmp_path, 'e2e', 50., weights=dict(path='w', sha256='a' * 64, coverage='all'))
    bad = '<script>alert(1)</script>"\'><img src=x onerror=alert(1)>\x1b[2J\u202e'

    def spoil(value, key=''):
        if isinstance(value, dict):
            return {k: spoil(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [spoil(v) for v in value]
        fixed = ('sha256', 'config_sha256', 'git_commit', 'finished_at', 'task')
        return bad if isinstance(value, str) and key not in fixed else value

    path.write_text(json.dumps(spoil(json.loads(path.read_text()))))
    text, problems, _ = make_leaderboard(tmp_path, tmp_path / 'out')
    page = (tmp_path / 'out/leaderboard.html').read_text()
    assert text and not problems and 'alert' in page
    assert '<script' not in page and '<img src=x' not in page
    assert not {'\x1b', '\u202e'} & set(page + text + (tmp_path / 'out/leaderboard.md').read_text())


@pytest.mark.parametrize('name', ['../val2017/{}', '{root}/val2017/{}', 'a/../../val2017/{}'])
def test_check_reports_images_outside_of_the_data(tmp_path, name):
    from mmincubation.check.data import check_data
    from mmincubation.check.report import Report
    from mmincubation.check.sampling import Look
    write_coco(tmp_path)
    file = tmp_path / 'annotations/instances_train2017.json'
    content = json.loads(file.read_text())
    other = sorted(os.listdir(tmp_path / 'val2017'))[0]
    content['images'][0]['file_name'] = name.format(other, root=tmp_path)
    file.write_text(json.dumps(content))
    dataset = dict(type='CocoDataset', data_root=str(tmp_path), ann_file='annotations/instances_train2017.json',
                   data_prefix=dict(img='train2017/'))
    cfg = mmengine.Config(dict(default_scope='mmdet', model=dict(), train_dataloader=dict(dataset=dataset)))
    report = Report()
    report.section('Data')
    check_data(cfg, report, Look(False))
    assert "outside of the data set's folder" in report.text() and other in report.text()


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
