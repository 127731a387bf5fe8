"""tools/probe.py on a tiny image folder, end to end: what it writes, and what it refuses."""
import json
import shutil

import pytest
import torch

from mmincubation.checkpoints import sha256_of, write_tensors
from mmincubation.leaderboard.card import CardError, make_files
from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.render import overview
from mmincubation.leaderboard.table import make_sections
from mmincubation.models import VisionTransformer
from mmincubation.probes.result import names_of
from mmincubation.result import read_result
from tests.helpers.paths import ROOT
from tests.helpers.results import put
from tests.helpers.tools import refused
from tests.helpers.toy import ARCH, write_images

TOOL = str(ROOT / 'tools/probe.py')


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp('data') / 'toys'
    write_images(root / 'train', 8)
    write_images(root / 'val', 4)
    return root


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    vit = VisionTransformer(ARCH)
    write_tensors(tmp_path / 'run/weights/e2e_last.safetensors', vit.state_dict(),
                  dict(kind='vit', arch=vit.arch.to_dict()))
    return tmp_path / 'run/weights/e2e_last.safetensors'


def options(data, out) -> list:
    return ['--train', data / 'train', '--val', data / 'val', '--crop-pct', 1, '--workers', 0, '--out', out]


def test_results_stand_in_the_leaderboard(tool, data, weights, tmp_path):
    own = put(tmp_path / 'made', 'e2e', 50., seed=4, experiment=dict(task='classification', model='toy', method='mine'),
              outputs=[dict(path='weights/e2e_last.safetensors', sha256=sha256_of(weights))])
    own.rename(weights.parents[1] / 'result.json')
    done = tool(weights, *options(data, tmp_path / 'out'))
    assert done.returncode == 0 and 'knn/top1' in done.stdout, done.stderr
    runs, problems, _ = collect([tmp_path])
    sections = make_sections(runs)
    assert not problems and [section.title for section in sections] == ['Classification', 'k-NN', 'Linear probe']
    for section in sections[1:]:
        cells = section.lines[0].cells
        assert (cells['model'], cells['method'], cells['data'], cells['n']) == ('toy', 'mine', 'toys', '1')
        assert float(cells[section.columns[3]]) > 60  # chance is 33; the classes differ in brightness
    assert overview(sections).splitlines()[0] == '| method | top-1 | k-NN top-1 | linear top-1 |'
    result = json.loads((tmp_path / 'out/linear/result.json').read_text())
    assert result['seed'] == 4 and result['weights']['sha256'] == sha256_of(weights)
    assert result['images_seen'] == 24 and result['block_forwards'] == 24 * 4 and result['data']['val_size'] == 12
    assert result['recipe']['crop_pct'] == '1.0' and 'class token' in result['recipe']['feature']
    with pytest.raises(CardError, match='trains no model'):
        make_files(tmp_path / 'out/knn')


def test_a_folder_with_an_at_sign_is_a_folder(weights, tmp_path):
    """Only in hf:// addresses a revision follows it."""
    put(tmp_path / 'made', 'mine', 50., seed=4).rename(weights.parents[1] / 'result.json')
    folder = weights.parents[1].rename(tmp_path / 'me@host')
    (folder / 'last_checkpoint').write_text('a@1.pth')
    arch = VisionTransformer(ARCH).arch
    assert names_of(str(folder / 'a@1.pth'), 'x', arch).method == 'mine'
    assert names_of(str(tmp_path / 'a@b.pth'), 'x', arch).method == 'a@b'
    assert names_of('hf://o/r/vit.safetensors@' + 40 * 'a', 'x', arch).method == 'vit'


def test_equal_commands_give_equal_results(tool, data, weights, tmp_path):
    for out in 'ab':
        assert tool(weights, *options(data, tmp_path / out), '--seed', 1).returncode == 0
    for name in ('knn', 'linear'):
        first, second = (json.loads((tmp_path / out / name / 'result.json').read_text()) for out in 'ab')
        keys = ('metrics', 'recipe', 'config_sha256', 'data', 'seed', 'weights', 'experiment')
        assert [first[key] for key in keys] == [second[key] for key in keys]
        assert first['experiment']['method'] == 'e2e_last' and first['experiment']['model'] == 'ViT, width 16, depth 4'


def test_the_pixels_are_those_that_the_weights_state(tool, data, weights, tmp_path):
    """And a mean that is given is taken; a result of an earlier version has ImageNet's, which is the default still."""
    said = []
    for given in ([], ['--mean', 1, 2, 3]):
        for stated in ({}, dict(image_mean=[.5] * 3, image_std=[.5] * 3)):
            (weights.parent / 'preprocessor_config.json').write_text(json.dumps(stated))
            done = tool(weights, *options(data, tmp_path / 'out'), '--probes', 'knn', *given)
            assert done.returncode == 0, done.stderr
            result = read_result(tmp_path / 'out/knn/result.json')
            assert result['recipe']['mean'] == result['options']['mean']
            said.append((json.loads(result['recipe']['mean']), json.loads(result['recipe']['std'])))
            assert ('preprocessor_config.json says' in done.stdout) == bool(stated)
    usual, half = ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375]), ([127.5] * 3, [127.5] * 3)
    assert said == [usual, half, ([1, 2, 3], usual[1]), ([1, 2, 3], half[1])]


def test_each_weight_file_has_a_folder_of_its_own(tool, data, weights, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert tool(weights, *options(data, '')[:-2], '--probes', 'knn', '--method', 'a/../b').returncode == 0
    same = f'work_dirs/probes/a_.._b_{sha256_of(weights)[:8]}_toys_*/knn/result.json'
    assert len(list(tmp_path.glob(same))) == 1
    changes = ('--pool', 'avg'), ('--fraction', '0.9')
    for change in changes:
        assert tool(weights, *options(data, '')[:-2], '--probes', 'knn', '--method', 'a/../b', *change).returncode == 0
    names = {read_result(path)['experiment']['data'] for path in tmp_path.glob(same)}
    assert len(list(tmp_path.glob(same))) == 3 and names == {'toys', 'toys, 90 %'}


@pytest.mark.parametrize('given, said', [
    (['--fraction', .5], '20 neighbours, but there are 12 training images'),
    (['--train', 'nowhere'], 'nowhere cannot be read'),
    (['--arch', 'num_heads=4'], 'num_heads=4'), (['--arch', 'img_size=9'], 'img_size=9'),
    (['--arch', 'img_size=0'], 'img_size=0: give a whole number above 0')])
def test_refusals_are_one_line(tool, data, weights, tmp_path, given, said):
    assert said in refused(tool(weights, *options(data, tmp_path / 'out'), *given))
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('more', [[], ['--fraction', .9], ['--probes', 'linear']])
def test_validation_on_the_training_images_is_refused(tool, data, weights, tmp_path, more):
    (tmp_path / 'link').symlink_to(data / 'train')
    shutil.copytree(data / 'train', tmp_path / 'copied')
    for val in [data / 'train', tmp_path / 'link', *([] if '--fraction' in more else [tmp_path / 'copied'])]:
        done = tool(weights, *options(data, tmp_path / 'out'), '--val', val, *more)
        assert 'would be its own neighbour; give other images' in refused(done)
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('option', ['--seed', '--workers'])
def test_negative_counts_are_refused_before_anything_is_read(tool, option):
    done = tool('none.pth', '--train', 'none', '--val', 'none', option, '-1')
    assert done.returncode == 2 and f'error: argument {option}: \'-1\' is no whole number from 0 on' in done.stderr


def test_other_classes_in_the_validation_set_are_refused(tool, data, weights, tmp_path):
    write_images(tmp_path / 'val', 1)
    (tmp_path / 'val/2').rename(tmp_path / 'val/9')
    done = tool(weights, *options(data, tmp_path / 'out'), '--val', tmp_path / 'val')
    assert "'9' is a class of the data" in refused(done)
