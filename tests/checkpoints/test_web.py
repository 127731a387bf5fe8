"""https:// addresses: downloaded once, kept by their whole address, verified, and taken wherever a path is."""
import http.server
import threading
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.runner import CheckpointLoader

from mmincubation.checkpoints import CheckpointError, inspect_weights, open_vit, sha256_of
from mmincubation.checkpoints.convert import convert
from mmincubation.checkpoints.hub import fetch, hash_in_name, local_file
from mmincubation.config.data_only import read_data_only
from mmincubation.downstream import ViTBackbone
from mmincubation.engine import launch
from mmincubation.models import ViTClassifier
from tests.checkpoints.test_kinds import STATE, write_shards
from tests.helpers import toy
from tests.helpers.weight_files import ARCH, equal


@pytest.fixture
def web(tmp_path, monkeypatch):
    """A server of the folder `web.root` at `web.url`; `web.asked` lists the paths that were asked for."""
    asked, root = [], tmp_path / 'served'
    root.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path)

    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'cache'))
    fetch.cache_clear()
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=root)) as server:
        threading.Thread(target=partial(server.serve_forever, .01), daemon=True).start()
        yield SimpleNamespace(root=root, url=f'http://127.0.0.1:{server.server_port}', asked=asked)
        server.shutdown()
    fetch.cache_clear()


def test_models_and_tools_take_an_address(web, tmp_path):
    torch.save(dict(model=STATE), web.root / 'deit.pth')
    url = f'{web.url}/deit.pth?download=true'
    init_cfg = dict(type='Pretrained', checkpoint=url)
    models = ViTClassifier(ARCH.to_dict(), init_cfg=init_cfg), ViTBackbone(ARCH, (3, ), init_cfg=init_cfg)
    for model in models:
        model.init_weights()
        assert model.load_report['path'] == url and model.load_report['sha256'] == sha256_of(web.root / 'deit.pth')
        assert 'not checked: no hash was reported and none was given; add #sha256=HASH' in model.load_report['coverage']
    assert equal(models[0].vit.state_dict(), STATE)
    assert inspect_weights(url).format == 'deit'
    convert(url, tmp_path / 'b.safetensors')
    assert equal(open_vit(tmp_path / 'b.safetensors').tensors, STATE)
    assert len(web.asked) == 1


def test_equal_names_at_two_addresses_are_two_files(web):
    """torch hub itself would give the first one for both."""
    for name, plus in (('deit', 0), ('moco', 1)):
        (web.root / name).mkdir()
        torch.save({key: value + plus for key, value in STATE.items()}, web.root / name / 'checkpoint.pth')
    assert open_vit(f'{web.url}/deit/checkpoint.pth').tensors['norm.bias'].equal(STATE['norm.bias'])
    assert open_vit(f'{web.url}/moco/checkpoint.pth').tensors['norm.bias'].equal(STATE['norm.bias'] + 1)


def test_a_name_with_its_hash_is_torch_hubs_own_file_and_verified(web, tmp_path):
    torch.save(STATE, tmp_path / 'a.pth')
    name = f'deit_tiny-{sha256_of(tmp_path / "a.pth")[:8]}.pth'
    while hash_in_name(name) is None:  # decimal digits alone
        torch.save({**STATE, 'norm.bias': torch.rand(16)}, tmp_path / 'a.pth')
        name = f'deit_tiny-{sha256_of(tmp_path / "a.pth")[:8]}.pth'
    (tmp_path / 'cache/hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'a.pth').rename(tmp_path / 'cache/hub/checkpoints' / name)
    assert local_file(f'{web.url}/{name}').parent == tmp_path / 'cache/hub/checkpoints' and not web.asked
    fetch.cache_clear()
    torch.save(STATE | {'x': torch.ones(1)}, tmp_path / 'cache/hub/checkpoints' / name)
    with pytest.raises(CheckpointError, match=f'but {hash_in_name(name)} was in its name; delete the file'):
        local_file(f'{web.url}/{name}')


@pytest.mark.parametrize('name, digits', [
    ('deit_tiny-a1111674.pth', 'a1111674'), ('x_20200130-d4f0e3e0.pth', 'd4f0e3e0'), ('x-20200130.pth', None),
    ('epoch=1-step=12345678.ckpt', None), ('model-10000000.pth', None), ('vit.pth', None)])
def test_hashes_in_names(name, digits):
    assert hash_in_name(name) == digits


def test_what_an_address_does_not_give_is_one_line(web):
    (web.root / 'page.pth').write_text('<!DOCTYPE html><html>sign in</html>')
    torch.save(STATE, web.root / 'a.pth')
    for url, message in [(f'{web.url}/none.pth', 'cannot be downloaded .HTTPError: HTTP Error 404'),
                         (f'{web.url}/page.pth', 'is a web page, not weights; use the direct download link'),
                         (f'{web.url}/', 'write it as https://HOST/PATH/FILE'),
                         (f'{web.url}/a.pth#md5=1', 'write it as https://HOST/PATH/FILE'),
                         (f'{web.url}/a.pth#sha256={"0" * 64}', 'but 0{64} was given; delete the file'),
                         ('s3://bucket/a.pth', 's3:// is not read; give a path, an https:// address')]:
        with pytest.raises(CheckpointError, match=message) as error:
            open_vit(url)
        assert '\n' not in str(error.value)
    assert equal(open_vit(f'{web.url}/a.pth#sha256={sha256_of(web.root / "a.pth")}').tensors, STATE)


def test_shards_are_downloaded_with_their_index(web):
    write_shards(web.root / 'vit')
    assert equal(open_vit(f'{web.url}/vit/model.safetensors.index.json').tensors, STATE)
    assert len(web.asked) == 4


def test_runs_load_from_an_address(web, tmp_path, capsys):
    """load_from of tools/train.py and the checkpoint of tools/test.py."""
    read_data_only()
    toy.write_images(tmp_path / 'images', 2)
    model = ViTClassifier(toy.ARCH)
    torch.save(dict(state_dict=model.state_dict()), web.root / 'run.pth')
    cfg = toy.e2e_config(tmp_path / 'images', tmp_path / 'out', epochs=1)
    cfg.load_from, cfg.param_scheduler, cfg.optim_wrapper.optimizer.lr = f'{web.url}/run.pth', [], 0.
    cfg.dump(str(tmp_path / 'run.py'))
    assert launch.train(toy.arguments(tmp_path / 'run.py')) == 0, capsys.readouterr().err
    assert equal(open_vit(tmp_path / 'out/weights/e2e_last.safetensors').tensors, model.vit.state_dict())  # at lr 0
    assert launch.test(toy.arguments(tmp_path / 'run.py', checkpoint=cfg.load_from)) == 0, capsys.readouterr().err
    assert equal(CheckpointLoader.load_checkpoint(cfg.load_from)['state_dict'], model.state_dict())
    assert len(web.asked) == 1
