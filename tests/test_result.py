"""The schema of result.json: what is written can be read, and what is broken is refused with its name."""
import copy
import json
import subprocess
import sys

import pytest

from mmincubation.result import ResultError, read_result, require_experiment, write_atomic, write_result


@pytest.fixture
def result() -> dict:
    phase = dict(name='meta', epochs=2.0, images=20, block_forwards=80, seconds=1.5, metrics={'accuracy/top1': 50.0})
    return dict(
        schema=1, run='vit_demo_e2e', experiment=dict(task='classification', model='vit_demo', method='e2e'),
        config='configs/demo/vit_demo_e2e.py', config_sha256='a' * 64, git_commit=None, seed=0,
        weights=dict(path='w.safetensors', sha256='b' * 64, coverage='150/150 keys'),
        outputs=[dict(path='weights/e2e.safetensors', sha256='c' * 64)],
        data=dict(train='digits', train_size=10, val='digits', val_size=5), metrics={'accuracy/top1': 50},
        phases=[phase], images_seen=20, block_forwards=80, device_seconds=1.5, peak_memory_mib=100.0,
        hardware='a CPU', devices=1, versions=dict(torch='2'), pictures=['x/vis_image/0.png'],
        finished_at='2030-01-01T00:00:00+00:00')


def test_round_trip_leaves_no_other_file(tmp_path, result):
    path = tmp_path / 'run' / 'result.json'
    write_result(path, result)
    assert read_result(path) == result
    assert [file.name for file in path.parent.iterdir()] == ['result.json']


def test_optional_values_may_be_absent(tmp_path, result):
    result.update(weights=None, block_forwards=None, git_commit='d' * 40)
    result['data'].update(val=None, val_size=None)
    result['experiment']['note'] = 'chance is 10'
    result['phases'][0]['data_seconds'] = 0.5
    write_result(tmp_path / 'result.json', result)
    assert read_result(tmp_path / 'result.json') == result


def changed(result: dict, keys: str, value) -> dict:
    *way, last = [int(key) if key.isdigit() else key for key in keys.split('|')]
    result = copy.deepcopy(result)
    place = result
    for key in way:
        place = place[key]
    place[last] = value
    return result


BROKEN = [
    ('schema', 3, 'schema'), ('seed', '0', 'seed'), ('seed', True, 'seed'), ('seed', None, 'seed'),
    ('run', 3, 'run'), ('metrics', [], 'metrics'), ('metrics|mIoU', 'high', 'metrics.mIoU'),
    ('metrics|mIoU', float('nan'), 'metrics.mIoU'), ('metrics|mIoU', float('inf'), 'metrics.mIoU'),
    ('images_seen', 10**30, 'images_seen'), ('images_seen', 1.5, 'images_seen'),
    ('experiment|task', 'poetry', 'experiment.task'), ('experiment|nodes', 'x', 'experiment.nodes'),
    ('phases|0|seconds', None, 'phases[0].seconds'), ('phases|0', 'meta', 'phases[0]'),
    ('phases|0|data_seconds', None, 'phases[0].data_seconds'),
    ('weights|sha256', 'b' * 63, 'weights.sha256'), ('outputs|0|sha256', '../', 'outputs[0].sha256'),
    ('config_sha256', 'x', 'config_sha256'), ('git_commit', 'HEAD', 'git_commit'),
    ('finished_at', 'now', 'finished_at'),
    ('pictures|0', '../../x.png', 'pictures[0]'), ('pictures|0', '/etc/x.png', 'pictures[0]'),
    ('pictures|0', 'a/../../x.png', 'pictures[0]'), ('pictures|0', '..\\x.png', 'pictures[0]'),
    ('pictures|0', 'C:/x.png', 'pictures[0]'), ('pictures|0', 'x\0.png', 'pictures[0]'),
    ('pictures|0', 'x.svg', 'pictures[0]'), ('extra', 1, 'extra'),
]


@pytest.mark.parametrize(('keys', 'value', 'named'), BROKEN)
def test_broken_value_is_refused_by_name(tmp_path, result, keys, value, named):
    path, broken = tmp_path / 'result.json', changed(result, keys, value)
    with pytest.raises(ResultError, match='result.json') as error:
        write_result(path, broken)
    assert f'`{named}`' in str(error.value)
    assert not path.exists()
    path.write_text(json.dumps(broken))
    with pytest.raises(ResultError, match='run its config again') as error:
        read_result(path)
    assert f'`{named}`' in str(error.value) and '\n' not in str(error.value)


@pytest.mark.parametrize('key', ['run', 'metrics', 'phases', 'experiment', 'finished_at', 'pictures', 'schema'])
def test_missing_key_is_named(tmp_path, result, key):
    del result[key]
    (tmp_path / 'result.json').write_text(json.dumps(result))
    with pytest.raises(ResultError, match=f'`{key}` is missing'):
        read_result(tmp_path / 'result.json')


@pytest.mark.parametrize('data', [b'', b'{', b'[]', b'null', b'\xff\xfe{}', b'[' * 100_000, b'{"schema": 1e999}'])
def test_no_result_at_all_is_refused(tmp_path, data):
    (tmp_path / 'result.json').write_bytes(data)
    with pytest.raises(ResultError, match='result.json'):
        read_result(tmp_path / 'result.json')


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(ResultError, match='No such file'):
        read_result(tmp_path / 'result.json')


def test_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / 'file'
    write_atomic(path, b'old')

    def fail(*_):
        raise OSError('disk full')

    monkeypatch.setattr('os.fsync', fail)
    with pytest.raises(OSError, match='disk full'):
        write_atomic(path, b'new')
    assert path.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


def test_experiment_of_a_config():
    require_experiment(dict(task='detection', model='m', method='incub', note='n'))
    for wrong in (None, {}, dict(task='detection', model='m')):
        with pytest.raises(ResultError, match='config: .*experiment'):
            require_experiment(wrong)


def test_result_needs_only_the_standard_library():
    code = ("import sys; before = set(sys.modules); import mmincubation.result; "
            "new = {m.split('.')[0] for m in set(sys.modules) - before}; "
            "print(sorted(new - set(sys.stdlib_module_names) - {'mmincubation'}))")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'
