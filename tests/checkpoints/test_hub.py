"""hf:// names: what they must say, what is checked, and where they work."""
import hashlib
from pathlib import Path

import huggingface_hub
import pytest
import torch

from mmincubation.checkpoints import CheckpointError, inspect_weights, load_vit, read_vit, sha256_of
from mmincubation.checkpoints.convert import convert
from mmincubation.checkpoints.hub import HubFile, fetch, local_file
from mmincubation.config.problems import problems
from mmincubation.downstream import ViTBackbone
from mmincubation.engine import launch
from mmincubation.models import VisionTransformer, ViTClassifier
from tests.helpers import toy
from tests.helpers.weight_files import ARCH, equal, random_vit, write_file

REVISION = 'a1' * 20
NAME = 'org/repo/pretrained/vit.pth'


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub in a folder: `hub(name)` is the hf:// name of one of `FILES`, stored as the hub's cache stores it."""
    fetch.cache_clear()
    calls = []

    def download(repo_id, filename, *, revision):
        calls.append((repo_id, filename, revision))
        return str(tmp_path / 'cache/snapshots' / revision / filename)

    def put(name: str, etag: str | None = 'sha256', suffix: str = '') -> str:
        path, _ = write_file(tmp_path, name)
        pointer = tmp_path / 'cache/snapshots' / REVISION / 'pretrained' / name
        blobs = tmp_path / 'cache/blobs'
        for folder in (pointer.parent, blobs):
            folder.mkdir(parents=True, exist_ok=True)
        if etag is None:
            path.rename(pointer)
        else:
            blob = path.rename(blobs / (sha256_of(path) if etag == 'sha256' else etag))
            pointer.symlink_to(Path('../../../blobs') / blob.name)
        return f'hf://org/repo/pretrained/{name}@{REVISION}{suffix}'

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', download)
    put.calls = calls
    yield put
    fetch.cache_clear()


def test_a_name_is_read():
    assert HubFile.parse(f'hf://{NAME}@{REVISION}') == HubFile('org/repo', 'pretrained/vit.pth', REVISION)
    assert HubFile.parse(f'hf://org/repo/a@{REVISION}#sha256={"0" * 64}').sha256 == '0' * 64
    assert local_file('a/b.pth') == Path('a/b.pth')


@pytest.mark.parametrize('name, message', [
    (f'hf://{NAME}', 'no revision; a branch or tag can change.*40 hex digits.*hf://ORG/REPO'),
    (f'hf://{NAME}@main', "revision 'main'; a branch or tag can change"),
    (f'hf://{NAME}@{REVISION[:39]}', 'full 40 hex digits'),
    (f'hf://{NAME}@{"g" * 40}', 'full 40 hex digits'),
    (f'hf://org/vit.pth@{REVISION}', 'write it as hf://ORG/REPO/PATH/FILE@REVISION'),
    (f'hf:///repo/vit.pth@{REVISION}', 'write it as'),
    (f'hf://{NAME}@{REVISION}#sha256=12', "'sha256=12' after the # must be sha256= and 64 hex digits"),
    (f'hf://{NAME}@{REVISION}#md5={"0" * 32}', 'after the # must be'),
])
def test_a_name_that_could_mean_something_else_is_refused(name, message):
    with pytest.raises(CheckpointError, match=message) as error:
        read_vit(name)
    assert str(error.value).startswith(f'{name}: ') and '\n' not in str(error.value)


def test_a_given_hash_is_checked(hub, tmp_path):
    name = hub('deit.pth', None)
    path = tmp_path / 'cache/snapshots' / REVISION / 'pretrained/deit.pth'
    assert fetch(f'{name}#sha256={sha256_of(path)}') == (path, f'sha256 {sha256_of(path)} given: equal')
    assert hub.calls == [('org/repo', 'pretrained/deit.pth', REVISION)]
    with pytest.raises(CheckpointError, match=f'{sha256_of(path)} of the downloaded file .* but 0{{64}} was given'):
        read_vit(f'{name}#sha256={"0" * 64}')


def test_the_hubs_hash_is_checked(hub, tmp_path):
    file, said = fetch(hub('deit.pth'))
    assert said == f'sha256 {sha256_of(file)} reported by the hub: equal'
    with pytest.raises(CheckpointError, match='but f{64} was reported by the hub; delete the file'):
        read_vit(hub('mae.pth', 'f' * 64))
    with pytest.raises(CheckpointError, match='git blob sha1 .* but f{40} was reported'):
        read_vit(hub('timm.pth', 'f' * 40))


def test_small_files_are_checked_by_gits_hash(hub, tmp_path):
    path, _ = write_file(tmp_path, 'timm.pth')
    content = path.read_bytes()
    etag = hashlib.sha1(b'blob %d\0' % len(content) + content).hexdigest()
    path.rename(tmp_path / 'kept.pth')
    name = hub('timm.pth')
    pointer = tmp_path / 'cache/snapshots' / REVISION / 'pretrained/timm.pth'
    pointer.unlink()
    (tmp_path / 'kept.pth').rename(tmp_path / 'cache/blobs' / etag)
    pointer.symlink_to(tmp_path / 'cache/blobs' / etag)
    assert fetch(name)[1] == f'git blob sha1 {etag} reported by the hub: equal'


def test_no_hash_is_said(hub):
    assert 'not checked' in fetch(hub('deit.pth', None))[1]


def test_offline_is_one_clear_line(monkeypatch, tmp_path):
    """The real hf_hub_download, with its own error."""
    fetch.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(huggingface_hub.file_download.constants, 'HF_HUB_CACHE', str(tmp_path))
    with pytest.raises(CheckpointError) as error:
        read_vit(f'hf://{NAME}@{REVISION}')
    text = str(error.value)
    assert text.startswith(f'hf://{NAME}@{REVISION}: cannot be downloaded (') and '\n' not in text
    assert f'`hf download org/repo pretrained/vit.pth --revision {REVISION}`' in text and 'HF_HUB_OFFLINE' in text


# --- where a path of weights is taken

def test_convert_and_inspection_take_a_name(hub, tmp_path):
    name = hub('official.pth')
    done = convert(name, tmp_path / 'vit.safetensors')
    assert done.source == 'official' and 'reported by the hub: equal' in done.assumed[-1]
    assert 'reported by the hub: equal' in inspect_weights(name).assumed[-1]
    assert len(hub.calls) == 1  # one download, and one check, in a process


def test_models_take_a_name(hub):
    name = hub('deit.pth')
    state = random_vit().state_dict()
    init_cfg = dict(type='Pretrained', checkpoint=name)
    backbone = ViTBackbone(ARCH, (3, ), cls_token=True, init_cfg=init_cfg)
    classifier = ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg)
    vit = VisionTransformer(ARCH)
    for model in (backbone, classifier):
        model.init_weights()
    loaded = load_vit(vit, name)
    assert equal(classifier.vit.state_dict(), state) and equal(vit.state_dict(), state)
    assert equal(backbone.blocks.state_dict(), vit.blocks.state_dict())
    for report in (loaded, backbone.load_report, classifier.load_report):
        assert report['path'] == name and report['sha256'] == sha256_of(local_file(name))
        assert 'reported by the hub: equal' in report['coverage']


def test_the_config_check_looks_at_the_name_alone(tmp_path):
    toy.write_images(tmp_path / 'images')
    cfg = toy.e2e_config(tmp_path / 'images', tmp_path)
    cfg.model.init_cfg = dict(type='Pretrained', checkpoint=f'hf://{NAME}@{REVISION}', fresh=('head', ))
    assert problems(cfg, 'train') == []
    cfg.model.init_cfg.checkpoint, cfg.load_from = f'hf://{NAME}@main', 'hf://a'
    lines = problems(cfg, 'train')
    assert len(lines) == 2 and 'model.init_cfg.checkpoint: hf://' in lines[0] and 'load_from: hf://a: write' in lines[1]


def test_runs_load_from_a_name(tmp_path, monkeypatch, capsys):
    """load_from of tools/train.py and the checkpoint of tools/test.py."""
    toy.write_images(tmp_path / 'images', 2)
    model = ViTClassifier(toy.ARCH)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'run.pth')
    fetch.cache_clear()
    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', lambda *args, **kwargs: str(tmp_path / 'run.pth'))
    name = f'hf://org/repo/run.pth@{REVISION}'
    cfg = toy.e2e_config(tmp_path / 'images', tmp_path / 'out', epochs=1)
    cfg.load_from, cfg.param_scheduler, cfg.optim_wrapper.optimizer.lr = name, [], 0.
    cfg.dump(str(tmp_path / 'run.py'))
    args = toy.arguments(tmp_path / 'run.py')
    assert launch.train(args) == 0, capsys.readouterr().err
    assert equal(read_vit(tmp_path / 'out/weights/e2e_last.safetensors')[0], model.vit.state_dict())  # at lr 0
    assert launch.test(toy.arguments(tmp_path / 'run.py', checkpoint=name)) == 0, capsys.readouterr().err
    fetch.cache_clear()
