"""Whether a result is that of a run: of each kind of run that really wrote one, and of runs with one change."""
import json
import shutil
from dataclasses import replace

import pytest
import torch

from mmincubation.checkpoints import write_tensors
from mmincubation.errors import ConfigError
from mmincubation.models import ViTClassifier
from mmincubation.probes.arguments import probe_parser
from mmincubation.probes.run import main as probe
from mmincubation.result import read_result
from mmincubation.suite import work
from mmincubation.suite.main import do
from mmincubation.suite.plan import wrong_runs
from mmincubation.suite.runs import command_of, make_suite, read_suite
from mmincubation.suite.settings import FINISHED, OTHER, Settings
from tests.helpers.paths import ROOT
from tests.helpers.stock import Stock
from tests.helpers.tools import Forked
from tests.helpers.toy import ARCH, e2e_config, incubation_config, write_images

MASK = 'configs/demo/maskrcnn_vit_demo_scratch.py'


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(work, 'Popen', Forked)


def test_the_results_of_the_demo_are_those_of_its_suite(here):
    """Incubations, controls, detectors and segmentors, with and without weights, written months ago."""
    suite = read_suite('suites/demo.py', work_dir='results/demo')
    settings = Settings(suite)
    judged = {name: settings.judge(run) for name, run in suite.runs.items() if run.config}
    assert judged == dict.fromkeys(judged, (FINISHED, '')) and len(judged) == 14


@pytest.fixture
def trained(images, tmp_path, here):
    """Real runs: a drawn seed, a part that mmengine loads, and two files of weights, the second over the first."""
    torch.manual_seed(0)
    vit, whole, stock = tmp_path / 'vit.safetensors', tmp_path / 'whole.pth', tmp_path / 'stock.pth'
    model = ViTClassifier(ARCH)
    write_tensors(vit, model.vit.state_dict(), dict(kind='vit', arch=model.vit.arch.to_dict()))
    torch.save(dict(state_dict=model.state_dict()), whole)
    torch.save(Stock().state_dict(), stock)
    shutil.copytree(images, tmp_path / 'data')
    e2e_config(tmp_path / 'data', tmp_path, epochs=1, randomness=dict(seed=None), load_from=str(whole), **{
        'model.init_cfg': dict(type='Pretrained', checkpoint=str(vit))}).dump(tmp_path / 'two.py')
    cfg = e2e_config(tmp_path / 'data', tmp_path, epochs=1)
    cfg.model = dict(type='WithStock', arch=ARCH, stock=dict(
        type='Stock', init_cfg=dict(type='Pretrained', checkpoint=str(stock))))
    cfg.custom_imports = dict(imports=['tests.helpers.stock'])
    shutil.copytree(images, tmp_path / 'fewer')
    shutil.rmtree(tmp_path / 'fewer/1')  # so that a class of training is numbered otherwise here
    cfg.val_dataloader.dataset.root = str(tmp_path / 'fewer')
    cfg.dump(tmp_path / 'stock.py')
    suite = make_suite(tmp_path / 'out', [dict(config=str(tmp_path / f'{name}.py')) for name in ('two', 'stock')])
    assert do(Settings(suite), 2, [], poll=.1) == 0
    return suite


def test_trainings(trained, tmp_path):
    def judged(name: str, **options) -> tuple[str, str]:
        return Settings(trained).judge(replace(trained.runs[name], options={
            key.replace('__', '.'): value for key, value in options.items()}))

    for name in ('two', 'stock'):
        assert judged(name) == (FINISHED, '')
        weights = read_result(trained.runs[name].results[0])['weights']
        assert weights['path'] == str(tmp_path / dict(two='whole.pth', stock='stock.pth')[name])
    assert judged('two', randomness__seed=3)[0] == OTHER
    assert judged('two', experiment__data=None)[0] == FINISHED  # said nowhere
    assert 'experiment.data was not set, is now toys' in judged('two', experiment__data='toys')[1]

    _data_are_compared_by_content(judged, tmp_path)
    shutil.copytree(tmp_path / 'fewer', tmp_path / 'fewer_moved')
    assert judged('stock', val_dataloader__dataset__root=str(tmp_path / 'fewer_moved')) == (FINISHED, '')
    (tmp_path / 'whole.pth').write_bytes(b'another')
    assert judged('two') == (OTHER, f'{tmp_path}/whole.pth is another file now')
    (tmp_path / 'stock.pth').write_bytes(b'another')
    assert judged('stock') == (OTHER, f'{tmp_path}/stock.pth is another file now')
    (tmp_path / 'stock.pth').unlink()  # after use
    assert judged('stock') == (FINISHED, '')
    elsewhere = str(tmp_path / 'other' / 'gone.pth')
    assert judged('stock', model__stock__init_cfg__checkpoint=elsewhere) == (
        OTHER, f'weights were {tmp_path}/stock.pth, are now {elsewhere}, which does not exist')
    assert judged('two', load_from=None)[0] == OTHER  # vit.safetensors is left


def _data_are_compared_by_content(judged, tmp_path) -> None:
    write_images(tmp_path / 'others', 9)
    shutil.copytree(tmp_path / 'data', tmp_path / 'moved')
    (tmp_path / 'linked').symlink_to(tmp_path / 'data')
    for name in ('moved', 'linked'):
        assert judged('two', train_dataloader__dataset__root=str(tmp_path / name)) == (FINISHED, '')
    for kind, said in (('train', 'training'), ('val', 'validation')):
        for name in ('others', 'gone'):
            state, why = judged('two', **{f'{kind}_dataloader__dataset__root': str(tmp_path / name)})
            assert state == OTHER and why == (f'{said} data were mmincubation.ImageFolder {tmp_path}/data, are now '
                                              f'mmincubation.ImageFolder {tmp_path}/{name}')


@pytest.fixture
def probed(tmp_path):
    """A suite with a probe that is done, with numbers of all kinds."""
    for split in ('train', 'val'):
        write_images(tmp_path / 'toys' / split)
    vit = ViTClassifier(ARCH).vit
    write_tensors(tmp_path / 'w.safetensors', vit.state_dict(), dict(kind='vit', arch=vit.arch.to_dict()))
    given = dict(train=f'{tmp_path}/toys/train', val=f'{tmp_path}/toys/val', crop_pct=1, mean=(1, 2., 3), seed=2,
                 arch=('img_size=16', ), fraction=.9, probes=('knn', ), workers=0)
    suite = make_suite(tmp_path / 'out', [dict(name='p', weights=str(tmp_path / 'w.safetensors'), probe=given)])
    words = command_of(suite.runs['p'], {}, str(tmp_path / 'w.safetensors'))
    assert probe(probe_parser().parse_args(words[2:])) == 0
    return suite


def test_probes(probed, tmp_path):
    run, path = probed.runs['p'], probed.runs['p'].results[0]

    def judged(**changes) -> tuple[str, str]:
        return Settings(probed).judge(replace(run, probe={
            key: value for key, value in (run.probe | changes).items() if value != 'left out'}))

    assert judged() == judged(mean=[1., 2, 3.], workers=3) == (FINISHED, '')
    changes = [('pool', 'avg', 'pool was not set, is now "avg"'), ('prefix', 'a', 'prefix was not set, is now "a"'),
               ('columns', ['a', 'b'], 'columns was ["image", "label"], is now ["a", "b"]'),
               ('mean', 'left out', 'mean was [1.0, 2.0, 3.0], is now [123.675, 116.28, 103.53]'),
               ('arch', 'left out', 'arch was [["img_size", 16]], is now []'), ('fraction', 1, 'fraction was 0.9'),
               ('crop_pct', 'left out', 'crop_pct was 1.0, is now 0.875'), ('seed', 3, 'seed was 2, is now 3'),
               ('method', 'x', 'method was not set, is now "x"')]
    for key, value, said in changes:
        state, why = judged(**{key: value})
        assert state == OTHER and said in why, (key, why)
    shutil.copytree(tmp_path / 'toys', tmp_path / 'moved')
    write_images(tmp_path / 'others', 9)
    assert judged(train=f'{tmp_path}/moved/train', val=f'{tmp_path}/moved/val')[0] == FINISHED
    for name in ('others', 'gone'):
        assert f'data were {tmp_path}/toys/val, are now {tmp_path}/{name}' in judged(val=f'{tmp_path}/{name}')[1]

    older = json.loads(path.read_text())  # without options, of which only some are shown
    del older['options']
    path.write_text(json.dumps(older))
    assert judged() == (FINISHED, '')
    for key, value, _ in changes:
        unsaid = key in ('arch', 'prefix', 'columns')  # and so taken as they are now
        assert judged(**{key: value})[0] == (FINISHED if unsaid else OTHER), key


@pytest.mark.parametrize('made, said', [
    (lambda *to: e2e_config(*to, custom_hooks=[dict(type='mmincubation.CostMeter')]),
     "that run writes no weights, it has no WeightsHook: give its config custom_hooks=[dict(type='mmincubation.Weight"),
    (lambda *to: incubation_config(*to, epochs=(1, 1, 0)),
     'that run does not fine-tune, its phases are meta, module_0, module_1: give it epochs in train_cfg.phases.finetu'),
    (lambda *to: incubation_config(*to, **{'train_cfg.phase': 'meta'}), 'its phases are meta: give it epochs'),
    (None, 'that run trains a MaskRCNN, and such weights begin no other run')])
def test_promised_weights_that_no_run_writes(images, tmp_path, here, made, said):
    config = tmp_path / 'first.py' if made else MASK
    if made:
        made(images, tmp_path).dump(config)
    e2e_config(images, tmp_path).dump(tmp_path / 'second.py')
    suite = make_suite(tmp_path / 'out', [
        dict(name='first', config=str(config)), dict(config=str(tmp_path / 'second.py'), weights='first')])
    with pytest.raises(ConfigError) as error:
        Settings(suite).of(suite.runs['second'])
    assert str(error.value).startswith("second: weights='first': that run ") and said in str(error.value)


def test_a_file_that_is_named_and_no_run_writes(images, tmp_path, here):
    incubation_config(images, tmp_path).dump(tmp_path / 'first.py')
    found = {}
    for name in ('finetune_last', 'assembled', 'e2e_last'):
        e2e_config(images, tmp_path, **{'model.init_cfg': dict(
            type='Pretrained', checkpoint=f'{tmp_path}/out/first/weights/{name}.safetensors')}).dump(tmp_path / 's.py')
        suite = make_suite(tmp_path / 'out', [dict(config=str(tmp_path / 'first.py')),
                                              dict(config=str(tmp_path / 's.py'), needs='first')])
        found[name] = [line for _, line in wrong_runs(Settings(suite), suite.runs.values())]
    assert found['finetune_last'] == found['assembled'] == []
    assert found['e2e_last'] == [f'{tmp_path}/out/first/weights/e2e_last.safetensors: first writes no such file, but '
                                 'meta_last.safetensors, module_0_last.safetensors, module_1_last.safetensors, '
                                 'finetune_last.safetensors']
