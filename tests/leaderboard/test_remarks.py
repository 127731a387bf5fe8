"""A row says what makes its comparison with the baseline unequal."""
import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.render import overview
from mmincubation.leaderboard.table import make_sections
from tests.helpers.results import phase, put

RECIPE = {'optim_wrapper.optimizer.lr': '0.001', 'model.arch.depth': '24'}
PHASES = [phase('meta', 100, 40., 4), phase('module_0', 100, 50., 8), phase('finetune', 25, 60., 16)]


def lines_of(folder, task='classification'):
    return {line.cells['method']: line for section in make_sections(collect([folder])[0]) if section.task == task
            for line in section.lines}


def seeds(folder, method, value, **changes):
    for seed in range(3):
        put(folder, method, value + seed * (1 if method == 'e2e' else 1.5), seed=seed, **changes)


@pytest.mark.parametrize('method, changes, said', [
    ('grow_only', {'model.arch.depth': '12'}, 'unlike e2e: depth 12 | 24'),
    ('meta_only', {'model.arch.depth': '12'}, None),
    ('grow_only', {'train_cfg.phases.finetune.drop_path_rate': '0.3'}, 'unlike e2e: drop_path_rate 0.3 | unset'),
    ('grow_only', {'train_cfg.phases.finetune.drop_path_rate': '0.0', 'train_cfg.start': '"grow"'}, None)])
def test_depth_and_drop_path_are_no_part_of_a_method(tmp_path, method, changes, said):
    seeds(tmp_path, 'e2e', 60., recipe=RECIPE)
    seeds(tmp_path, method, 62., recipe=RECIPE | changes)
    assert lines_of(tmp_path)[method].remarks == ([said] if said else [])


def test_drop_path_of_an_incubations_end_is_that_of_a_model(tmp_path):
    seeds(tmp_path, 'e2e', 60., recipe=RECIPE | {'model.drop_path_rate': '0.1'})
    seeds(tmp_path, 'grow_only', 62., recipe=RECIPE | {'train_cfg.phases.finetune.drop_path_rate': '0.1'})
    assert lines_of(tmp_path)['grow_only'].remarks == []


@pytest.mark.parametrize('images, said', [(500, 'e2e has 50 % of its cost'), (2000, 'e2e has 200 % of its cost'),
                                          (950, None)])
def test_a_baseline_of_another_cost(tmp_path, images, said):
    seeds(tmp_path, 'e2e', 60., phases=[phase('train', images, 60.)])
    seeds(tmp_path, 'stack_only', 62.)
    assert lines_of(tmp_path)['stack_only'].remarks == ([said] if said else [])


def test_the_best_baseline_is_the_control_and_not_the_dearest(tmp_path):
    seeds(tmp_path, 'e2e', 60., phases=[phase('train', 1000, 60.)], recipe=RECIPE)
    seeds(tmp_path, 'e2e', 61., phases=[phase('train', 500, 60.)], recipe=RECIPE | {'batch': '8'})
    seeds(tmp_path, 'incub', 65., phases=[phase('module_0', 1000, 60.)], recipe=RECIPE)
    assert 'e2e (batch 8) has 50 % of its cost' in lines_of(tmp_path)['incub'].remarks


def test_a_name_that_contradicts_the_phases(tmp_path):
    seeds(tmp_path, 'e2e', 60., phases=PHASES)
    seeds(tmp_path, 'incub', 61., phases=[phase('meta', 200, 40., 4), phase('finetune', 75, 60., 16)])
    seeds(tmp_path, 'grow_only', 61., phases=[phase('meta', 200, 40., 4), phase('finetune', 75, 60., 16)])
    lines = lines_of(tmp_path)
    assert 'named e2e, but it trained modules' in lines['e2e'].remarks
    assert 'named incub, but it trained no modules' in lines['incub'].remarks
    assert not any(remark.startswith('named') for remark in lines['grow_only'].remarks)


def _pretrained(folder):
    """Three seeds of two methods; E2E has a quarter of the cost."""
    files = {}
    for method, images in (('e2e', 250), ('grow_only', 1000)):
        for seed in range(3):
            files[method, seed] = dict(path='weights/w.safetensors', sha256=f'{len(files):064d}')
            put(folder, method, 60. + seed, seed=seed, phases=[phase('train', images, 60.)],
                outputs=[files[method, seed]])
    return {key: file | dict(coverage='all') for key, file in files.items()}


def test_weights_of_another_method_seed_or_cost(tmp_path):
    files = _pretrained(tmp_path)
    for seed in range(3):
        put(tmp_path, 'e2e', .4 + seed / 100, 'detection', seed=seed, weights=files['e2e', 0])
        put(tmp_path, 'grow_only', .45 + seed / 50, 'detection', seed=seed,
            weights=files['e2e' if seed == 2 else 'grow_only', seed])
    lines = lines_of(tmp_path, 'detection')
    assert lines['e2e'].remarks == ['all seeds began with one weight file: ± leaves out its pre-training']
    assert lines['grow_only'].remarks[0] == 'seed 2 began with weights of e2e'
    assert 'pre-training of e2e had 33 % of the cost' in lines['grow_only'].remarks


def test_machines_and_versions(tmp_path):
    for seed in range(3):
        put(tmp_path, 'e2e', 60. + seed, seed=seed)
        put(tmp_path, 'stack_only', 62. + 2 * seed, seed=seed, **(dict(hardware='another CPU') if seed == 2 else {}))
        put(tmp_path, 'wide', 62. + 2 * seed, seed=seed, versions=dict(torch='1.0'))
    lines = lines_of(tmp_path)
    assert lines['stack_only'].remarks == ['seeds of several machines or versions of torch']
    assert lines['wide'].remarks == ['it and e2e of several machines or versions of torch']
    assert lines['stack_only'].record['device_seconds'] is None and lines['wide'].record['device_seconds'] == 10


def test_the_interval_that_a_remark_speaks_of_is_the_shown_one(tmp_path):
    for seed in range(3):
        for method, value in (('e2e', .4), ('wide', .45)):
            put(tmp_path, method, value + seed * (1 + (method == 'wide')) / 100, 'detection', seed=seed, metrics={
                'coco/bbox_mAP': value + seed * (1 + (method == 'wide')) / 100, 'coco/segm_mAP': .3})
    line = lines_of(tmp_path, 'detection')['wide']
    assert '±' in line.cells['Δ box AP'] and line.remarks == []


def test_models_side_by_side_share_the_rows_of_one_setting(tmp_path):
    def add(model, method, value, lr):
        put(tmp_path, method, value, recipe={'optim_wrapper.optimizer.lr': lr}, experiment=dict(
            task='classification', model=model, method=method, data='digits'))

    for model, method, value, lr in (('A', 'e2e', 60., '0.002'), ('A', 'e2e', 61., '0.008'), ('B', 'e2e', 62., '0.008'),
                                     ('A', 'incub', 50., '0.004'), ('B', 'incub', 51., '0.001')):
        add(model, method, value, lr)
    table = overview(make_sections(collect([tmp_path])[0]))
    assert table.splitlines()[2:5] == ['| e2e (lr 0.008) | 61.0 | 62.0 |', '| e2e (lr 0.002) | 60.0 | - |',
                                       '| incub | 50.0 | 51.0 |']
    assert 'incub has lr 0.004 (A), 0.001 (B)' in table
