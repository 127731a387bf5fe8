"""What a suite file may say, and the runs that it lists."""
import pytest

from mmincubation.errors import ConfigError
from mmincubation.suite.runs import command_of, make_suite, read_suite, words_of
from tests.helpers.paths import ROOT


@pytest.fixture
def suite(tmp_path):
    def read(text: str, **given):
        path = tmp_path / 'depth.py'
        path.write_text(text)
        return read_suite(path, **given)
    return read


def test_seeds_names_and_needs(suite):
    made = suite("""
_lrs = (1e-3, 2e-3)
seeds = 2
runs = [dict(name='data', command=['python', 'make.py']),
        *[dict(name=f'e2e_{lr}', config='configs/e2e.py', options={'optim_wrapper.optimizer.lr': lr}, needs='data')
          for lr in _lrs],
        dict(name='mask', config='mask.py', weights='e2e_0.001', seeds=[1]),
        dict(name='probe', probe=dict(train='a', val='b'), weights='old.pth')]""")
    assert str(made.work_dir) == 'work_dirs/depth'
    assert list(made.runs) == ['data', 'e2e_0.001_seed0', 'e2e_0.001_seed1', 'e2e_0.002_seed0', 'e2e_0.002_seed1',
                               'mask_seed1', 'probe']
    first = made.runs['mask_seed1']
    assert first.weights == 'e2e_0.001_seed1' and first.needs == ('e2e_0.001_seed1', ) and first.seed == 1
    assert list(made.before(first)) == ['data', 'e2e_0.001_seed1']
    assert made.runs['probe'].results[1] == made.work_dir / 'probe/linear/result.json'


def test_another_folder(suite, tmp_path):
    text = "work_dir = 'here'\nresults = 'there'\nruns = [dict(config='a/b.py')]"
    assert str(suite(text).results) == 'there'
    assert str(suite(text).runs['b'].folder) == 'here/b'
    assert str(suite(text, work_dir=str(tmp_path)).runs['b'].folder) == f'{tmp_path}/b'


@pytest.mark.parametrize('text, said', [
    ('seeds = 2', 'runs is missing or empty'),
    ("run = 1\nruns = [dict(config='a.py')]", 'run: no key of a suite; nearest: runs (helpers begin with an'),
    ("results = True\nruns = [dict(config='a.py')]", 'results=True: give the folder for copies'),
    ("work_dir = 3\nruns = [dict(config='a.py')]", "work_dir=3: give the name of a folder such as 'work_dirs/study'"),
    ("runs = ['a.py']", "runs.0='a.py': give a dict"),
    ("runs = [dict(config='a.py', option={})]", 'runs.0.option: no key of a suite; nearest: options'),
    ("runs = [dict(name='x')]", 'runs.0: give one of config (a training), probe and command, not 0'),
    ("runs = [dict(config='a.py', command=['b'])]", 'not 2 of them'),
    ("runs = [dict(config='a.py', name='../x')]", "runs.0.name='../x': give the name of a folder"),
    ("runs = [dict(config='a.py')] * 2", 'two runs are called a: give one another name'),
    ("runs = [dict(config='a.py', seeds=0)]", 'runs.0.seeds=0: give a number of seeds, 1 or more'),
    ("runs = [dict(config='a.py', seeds=[1, 1])]", 'runs.0.seeds=[1, 1]'),
    ("runs = [dict(config='abc.py'), dict(config='d.py', needs='abd')]", "needs='abd': no such run; there is abc"),
    ("runs = [dict(config='a.py', seeds=2), dict(config='b.py', weights='a', seeds=[2])]",
     "b_seed2: weights='a': no such run; there is a_seed0, a_seed1"),
    ("runs = [dict(config='a.py', needs='b'), dict(config='b.py', weights='a')]", 'these runs need each other: a, b'),
    ("runs = [dict(name='p', probe=dict(train='a', val='b'))]", 'a probe needs weights=...'),
    ("runs = [dict(name='p', weights='w', probe=dict(train='a', val='./a'))]",
     'runs.0.probe: train and val are both ./a: each image would be its own neighbour'),
    ('runs = [', "'[' was never closed"),
    *((f"runs = [dict(config='a.py', {given})]", f'runs.0.{said}') for given, said in [
        ('options=[1]', "options=[1]: give a dict such as {'model.drop_path_rate': 0.1}"),
        ("options='a=1'", "options='a=1': give a dict"), ('options={1: 2}', 'options={1: 2}: give a dict'),
        ("weights=['a.pth']", "weights=['a.pth']: give a run's name, or a file"), ('needs=3', 'needs=3: give names of'),
        ('needs=[3]', 'needs=[3]: give'), ("seconds='60'", "seconds='60': give a number such as 60"),
        ('seconds=True', 'seconds=True: give a number'), ('name=3', 'name=3: give the name of a folder')]),
    ("runs = [dict(config=['a.py'])]", "runs.0.config=['a.py']: give a path such as"),
    ("runs = [dict(name='x', command=['sleep', 5])]", "runs.0.command=['sleep', 5]: give words such as"),
    *((f"runs = [dict(name='p', weights='w', probe=dict(train='a', val='b', {given}))]", f'runs.0.probe{said}')
      for given, said in [
          ('probes=3', ': argument --probes: invalid choice'), ("probes='kmm'", ": argument --probes: invalid choice"),
          ('train_=3', '.train_: no key of a suite; nearest: train'), ("out='x'", '.out: no key of a suite'),
          ('fraction=3', ': argument --fraction: 3.0 is not above 0 and up to 1'), ('mean=5', ': argument --mean: exp'),
          ("arch=dict(num_heads=2)", ': argument --arch:'), ("seed='x'", ": argument --seed: 'x' is no whole")])])
def test_mistakes_are_one_line_that_names_them(suite, text, said):
    with pytest.raises(ConfigError) as error:
        suite(text)
    assert said in str(error.value) and 'depth.py' in str(error.value) and '\n' not in str(error.value)


def test_what_is_none_is_not_given(suite):
    run = suite("seeds = 2\nruns = [dict(config='a.py', name=None, options=None, weights=None, seeds=None)]").runs['a']
    assert (run.options, run.weights, run.seed) == ({}, '', None)
    probe = suite("_given = dict(train='a', val='b', probes='knn', pool=None)\n"
                  "runs = [dict(name='p', weights='w', probe=_given)]").runs['p']
    assert probe.results == [probe.folder / 'knn/result.json'] and '--pool' not in command_of(probe, {}, 'w')


def test_options_are_read_back_as_they_were():
    from mmincubation.config.load import parse_options
    options = {'a.b': 1e-5, 'c': 'plain', 'd': '5', 'e': True, 'f': (1, 2), 'g': dict(type='X', y=None), 'h': 'a, b',
               'i': '', 'l': 'a [b', 'm': '1,2', 'j': [1.5, 'x'], 'k': 'true'}
    assert parse_options(words_of(options)) == options


def test_commands(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = make_suite(tmp_path, [dict(config='a.py'), dict(name='p', weights='w.pth', probe=dict(
        train='t', val='v', crop_pct=1, probes=['knn']))]).runs
    alone, many = (command_of(runs['a'], {'x.y': 2}, '', gpus) for gpus in (1, 4))
    assert alone[1:] == ['tools/train.py', 'a.py', '--work-dir', f'{tmp_path}/a', '--resume', '--cfg-options', 'x.y=2']
    assert many[:3] == ['tools/dist_train.sh', 'a.py', '4'] and many[3:] == alone[3:]
    assert command_of(runs['p'], {}, 'w.pth')[1:] == [
        'tools/probe.py', 'w.pth', '--train', 't', '--val', 'v', '--crop-pct', '1', '--probes', 'knn', '--out',
        f'{tmp_path}/p']


def test_every_config_of_the_demo_is_a_run_of_its_suite():
    runs = read_suite(ROOT / 'suites/demo.py').runs
    assert {path.stem for path in (ROOT / 'configs/demo').glob('*.py')} == set(runs) - {'data'}
    assert all(run.folder.parts == ('work_dirs', name) for name, run in runs.items())  # where configs look for weights
    assert [name for name, run in runs.items() if not run.needs] == ['data']
