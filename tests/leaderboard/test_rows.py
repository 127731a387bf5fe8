"""A row is task, model, data, recipe and method; its runs differ in the seed alone."""
import inspect

import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.rows import MODULES, final_points, merge_seeds, missing_phases, short_names
from mmincubation.leaderboard.versus import UnknownBaseline, choose_baselines, control_faults, share_of_cost
from tests.helpers.results import phase, put


def rows_of(folder):
    return merge_seeds(collect([folder])[0])


def recipe(**changes):
    return {'optim_wrapper.optimizer.lr': '0.001', 'batch': '64', 'train_cfg.max_epochs': '7'} | {
        key.replace('__', '.'): value for key, value in changes.items()}


def test_seeds_of_one_recipe_are_one_row(tmp_path):
    for seed, value in enumerate((60.0, 62.0, 67.0)):
        put(tmp_path, 'incub', value, seed=seed)
    (row, ) = rows_of(tmp_path)
    assert len(row.runs) == 3 and row.label == 'incub' and row.main().mean == 63


def test_two_recipes_of_a_method_are_two_rows_that_say_what_differs(tmp_path):
    for seed in (0, 1):
        put(tmp_path, 'e2e', 60.0 + seed, seed=seed, recipe=recipe())
    put(tmp_path, 'e2e', 50.0, seed=2, recipe=recipe(optim_wrapper__optimizer__lr='0.002'))
    assert [(row.label, len(row.runs)) for row in rows_of(tmp_path)] == [('e2e (lr 0.001)', 2), ('e2e (lr 0.002)', 1)]


def test_many_differences_are_named_with_the_first_two(tmp_path):
    put(tmp_path, 'e2e', 60.0, recipe=recipe())
    put(tmp_path, 'e2e', 50.0, recipe=recipe(batch='32', train_cfg__max_epochs='9', model__type='"X"'))
    assert [row.label for row in rows_of(tmp_path)] == ['e2e (batch 64, max_epochs 7, 1 more)',
                                                        'e2e (batch 32, max_epochs 9, 1 more)']


def test_what_changes_the_meaning_of_a_metric_is_named_first(tmp_path):
    put(tmp_path, 'e2e', 60.0, recipe=recipe(val_dataloader__dataset__pipeline__0__scale='[96, 96]'))
    put(tmp_path, 'e2e', 50.0, recipe=recipe(val_dataloader__dataset__pipeline__0__scale='[64, 64]', batch='32'))
    assert [row.label for row in rows_of(tmp_path)] == ['e2e (scale [96, 96], batch 64)',
                                                        'e2e (scale [64, 64], batch 32)']


def test_rows_whose_names_would_be_alike_have_the_digest_of_their_recipe(tmp_path):
    for value, size, batch in ((71.0, '1', '64'), (70.0, '2', '64'), (69.0, '1', '32')):
        put(tmp_path, 'e2e', value, recipe=recipe(
            batch=batch, train_cfg__max_epochs=batch, train_dataloader__dataset__pipeline__0__size=size))
    labels = [row.label for row in rows_of(tmp_path)]
    assert len({*labels}) == 3 and labels[0].startswith('e2e (batch 64, max_epochs 64, 1 more, recipe ')


def test_names_of_settings_are_as_short_as_they_can_be():
    assert short_names(['a.optimizer.lr', 'b.optimizer.lr', 'c.end', 'p.0', 'batch']) == {
        'a.optimizer.lr': 'a.optimizer.lr', 'b.optimizer.lr': 'b.optimizer.lr', 'c.end': 'end', 'p.0': 'p.0',
        'batch': 'batch'}


def test_a_colleagues_paths_do_not_count(tmp_path):
    own = put(tmp_path, 'e2e', 60.0)
    data = dict(train='ImageFolder /home/c/digits/train', train_size=100, val='ImageFolder /home/c/digits/val',
                val_size=50, train_content='1' * 12, val_content='2' * 12)
    put(tmp_path / 'hers', 'e2e', 61.0, seed=1, data=data, config='/home/c/e2e.py')
    (row, ) = rows_of(tmp_path)
    assert len(row.runs) == 2 and row.data == 'digits' and own.exists()


def test_data_of_one_name_and_other_content_are_told_apart(tmp_path):
    size = dict(
        train='x/digits', train_size=10, val='x/digits', val_size=5, train_content='3' * 12, val_content='4' * 12)
    put(tmp_path, 'e2e', 60.0)
    put(tmp_path, 'incub', 61.0, data=size)
    assert {row.data for row in rows_of(tmp_path)} == {'digits (100 + 50 images)', 'digits (10 + 5 images)'}
    put(tmp_path, 'scratch', 61.0, data=size | dict(train_content='5' * 12))
    names = {row.data for row in rows_of(tmp_path)}
    assert len(names) == 3 and 'digits (100 + 50 images)' in names
    assert sum(name.startswith('digits (10 + 5 images, content ') for name in names) == 2


def test_data_without_a_name_have_that_of_their_folder(tmp_path):
    put(tmp_path, 'e2e', 60.0, experiment=dict(task='classification', model='m', method='e2e'),
        data=dict(train='mmincubation.ImageFolder data/imagenet/train', train_size=1, val=None, val_size=None))
    assert rows_of(tmp_path)[0].data == 'imagenet'  # of an older result
    data = dict(train='ImageFolder /home/c/my pets/train', train_size=1, val=None, val_size=None, folder='my pets')
    put(tmp_path / 'b', 'e2e', 60.0, experiment=dict(task='classification', model='m', method='e2e'), data=data)
    assert rows_of(tmp_path / 'b')[0].data == 'my pets'


@pytest.mark.parametrize(('given', 'sizes', 'name'), [
    ('COCO', (117_266, 5_000), 'COCO'), ('COCO', (3 * 118_287, 5_000), 'COCO'), ('COCO', (532, 132), 'own (not COCO)'),
    ('COCO', (500, 5_000), 'own (not COCO)'), ('ImageNet-1K', (1_281_167, 50_000), 'ImageNet-1K'),
    ('ImageNet-1K', (128_117, 50_000), 'own (not ImageNet-1K)'),
    ('ImageNet-1K, 25 %', (320_291, 50_000), 'ImageNet-1K, 25 %'), ('demo digits', (90, 10), 'own (not demo digits)'),
    ('mine', (3, 2), 'mine')])
def test_a_name_that_a_config_inherited_is_compared_with_the_sizes(tmp_path, given, sizes, name):
    put(tmp_path, 'e2e', 0.4, 'detection', experiment=dict(task='detection', model='m', method='e2e', data=given),
        data=dict(train='CocoDataset data/own/ a.json', train_size=sizes[0], val='v', val_size=sizes[1], folder='own'))
    assert rows_of(tmp_path)[0].data == name


def test_the_same_seed_twice_is_kept_and_known(tmp_path):
    put(tmp_path, 'e2e', 60.0)
    put(tmp_path, 'e2e', 62.0, finished_at='2031-01-01T00:00:00+00:00')
    (row, ) = rows_of(tmp_path)
    assert row.repeated == [0] and len(row.runs) == 2 and row.main().mean == 61 and row.main().half is None


def test_a_copied_result_is_one_run(tmp_path):
    text = put(tmp_path, 'e2e', 60.0).read_bytes()
    (tmp_path / 'copy').mkdir()
    (tmp_path / 'copy/result.json').write_bytes(text)
    runs, problems, copies = collect([tmp_path])
    assert len(runs) == 1 and not problems and len(copies) == 1 and 'copy of' in copies[0]


def test_results_of_version_1_are_read_and_not_merged(tmp_path):
    for seed in (0, 1):
        path = put(tmp_path, 'e2e', 60.0, seed=seed, config_sha256=f'{seed}' * 64)
        text = path.read_text().replace('"schema": 2', '"schema": 1')
        start = text.index('  "recipe": {')
        path.write_text(text[:start] + text[text.index('}', start) + 2:].lstrip('\n'))
    assert [row.label for row in rows_of(tmp_path)] == ['e2e (config 00000000)', 'e2e (config 11111111)']


def baselines(rows, name=None):
    chosen = choose_baselines(rows, name)
    return {row.label: chosen[id(row)].label for row in rows if id(row) in chosen}


def test_baseline_is_e2e_else_the_first_or_the_one_asked_for(tmp_path):
    for method, value in dict(a=70.0, e2e=60.0, b=50.0).items():
        put(tmp_path, method, value)
    rows = rows_of(tmp_path)
    assert set(baselines(rows).values()) == {'e2e'} and set(baselines(rows, 'b').values()) == {'b'}
    assert set(baselines([row for row in rows if row.method != 'e2e']).values()) == {'a'}  # by name, not the best
    with pytest.raises(UnknownBaseline, match='--baseline e2f: no run has this method; nearest: e2e'):
        choose_baselines(rows, 'e2f')


def test_of_several_recipes_of_the_baseline_the_best_with_several_seeds_counts(tmp_path):
    rates = {rate: recipe(optim_wrapper__optimizer__lr=rate) for rate in ('0.001', '0.002', '0.003')}
    put(tmp_path, 'e2e', 60.0, recipe=rates['0.001'])
    put(tmp_path, 'e2e', 65.0, recipe=rates['0.002'])
    put(tmp_path, 'a', 70.0, recipe=rates['0.001'])
    assert set(baselines(rows_of(tmp_path)).values()) == {'e2e (lr 0.002)'}  # also where the own rate was not tuned
    put(tmp_path, 'e2e', 61.0, seed=1, recipe=rates['0.001'])
    put(tmp_path, 'e2e', 99.0, seed=1, recipe=rates['0.003'])
    assert set(baselines(rows_of(tmp_path)).values()) == {'e2e (lr 0.001)'}  # not a lucky seed


def test_models_data_and_tasks_are_not_compared(tmp_path):
    put(tmp_path, 'e2e', 60.0)
    put(tmp_path, 'incub', 0.6, 'detection')
    other = dict(train='y', train_size=1, val=None, val_size=None)
    put(tmp_path, 'incub', 80.0, data=other)
    rows = rows_of(tmp_path)
    chosen = choose_baselines(rows, None)
    assert all(chosen[id(row)] is row for row in rows)


@pytest.mark.parametrize(('there', 'said'), [
    ((), 'no E2E or growth or meta-model control'), (('e2e', 'meta_only'), 'no growth control'),
    (('e2e', 'meta_only', 'stack_only'), None), (('e2e', 'grow_only', 'meta_only'), None),
    (('grow_only', 'meta_only'), 'no E2E control')])
def test_an_incubation_says_which_controls_it_lacks(tmp_path, there, said):
    put(tmp_path, 'mine', 70.0, phases=[phase('meta', 10), phase('module_0', 10), phase('finetune', 5, 70.0)])
    for method in there:
        put(tmp_path, method, 60.0)
    rows = rows_of(tmp_path)
    assert [control_faults(row, rows, None) for row in rows] == [[said] if said else []] + [[]] * len(there)


def test_a_control_counts_if_it_was_measured_at_the_cost(tmp_path):
    put(tmp_path, 'incub', 70.0, phases=[phase('meta', 100), phase('module_0', 100), phase('finetune', 100, 70.0)])
    put(tmp_path, 'e2e', 60.0, phases=[phase('train', 300, 60.0)])
    put(tmp_path, 'grow_only', 60.0, phases=[phase('train', 30, 60.0)])
    put(tmp_path, 'meta_only', 60.0, metrics={})
    rows = rows_of(tmp_path)
    assert control_faults(rows[0], rows, None) == ['no meta-model control', 'growth control at 10 % of the cost']


def test_growth_without_incubation_is_none(tmp_path):
    put(tmp_path, 'grow_only', 70.0, phases=[phase('meta', 10), phase('finetune', 5, 70.0)])
    rows = rows_of(tmp_path)
    assert control_faults(rows[0], rows, None) == []


def test_only_the_whole_model_can_reach_the_baseline(tmp_path):
    put(tmp_path, 'incub', 70.0, phases=[
        phase('meta', 10, 90.0, 4, curve=[(5, 80.0), (10, 90.0)]), phase('module_0', 10, blocks=8),
        phase('assembled', 0, 50.0, curve=[(0, 50.0)]), phase('finetune', 10, 70.0, curve=[(5, 60.0), (10, 70.0)])])
    put(tmp_path, 'e2e', 65.0, phases=[phase('train', 30, 65.0)])
    incub, e2e = rows_of(tmp_path)
    assert final_points(incub.runs[0], 'block_forwards') == [(120, 50.0), (200, 60.0), (280, 70.0)]
    assert share_of_cost(incub, e2e) == 240 / 480
    assert share_of_cost(e2e, incub) is None  # 65 is never 70


def test_growth_does_not_reach_the_baseline_by_its_meta_model(tmp_path):
    put(tmp_path, 'grow_only', 70.0, phases=[
        phase('meta', 10, 66.0, 4, curve=[(10, 66.0)]), phase('assembled', 0, 66.0, curve=[(0, 66.0)]),
        phase('finetune', 10, 70.0, curve=[(5, 60.0), (10, 70.0)])])
    put(tmp_path, 'e2e', 65.0, phases=[phase('train', 30, 65.0)])
    grown, e2e = rows_of(tmp_path)
    assert final_points(grown.runs[0], 'block_forwards') == [(120, 60.0), (200, 70.0)]
    assert share_of_cost(grown, e2e) == 160 / 480


def test_a_plateau_of_the_baseline_is_no_gain_and_a_spike_is_no_arrival(tmp_path):
    flat = [(100, 60.0), (200, 60.0), (400, 60.0)]
    put(tmp_path, 'e2e', 60.0, phases=[phase('train', 400, 60.0, curve=flat)])
    put(tmp_path, 'alike', 60.1, phases=[phase('train', 400, 60.1, curve=[(at, top + 0.1) for at, top in flat])])
    put(tmp_path, 'spike', 50.0, phases=[phase('train', 400, 50.0, curve=[(10, 70.0), (400, 50.0)])])
    alike, e2e, spike = rows_of(tmp_path)
    assert share_of_cost(alike, e2e) == 1 and share_of_cost(spike, e2e) is None


def test_a_result_that_lacks_phases_has_no_cost(tmp_path):
    epochs = {f'train_cfg.phases.{name}.epochs': '2' for name in ('meta', 'module', 'finetune')}
    phases = epochs | {'model.modules': '1'}
    put(tmp_path, 'incub', 70.0, recipe=recipe(**phases), phases=[phase('finetune', 100, 70.0)])
    put(tmp_path, 'whole', 70.0, recipe=recipe(**phases), phases=[
        phase('meta', 10), phase('module_0', 10), phase('finetune', 100, 70.0)])
    alone, whole = sorted(rows_of(tmp_path), key=lambda row: row.method)
    assert alone.total('images_seen') is None and whole.total('images_seen') == 120
    assert missing_phases(alone.runs[0]) == ['meta', 'module_0']
    assert final_points(alone.runs[0], 'block_forwards') == [] != final_points(whole.runs[0], 'block_forwards')


@pytest.mark.parametrize('settings, modules', [
    ({'model.modules': '[1, 3]', 'module': '2'}, 2), ({'model.modules': '2', 'module_0': '1', 'module_1': '1'}, 2),
    ({'module': '2'}, 4), ({'model.modules': '1', 'module': '1', 'module_0': '0'}, 0)])
def test_the_phases_that_a_recipe_trains_are_read_as_the_loop_reads_them(tmp_path, settings, modules):
    """Depths instead of a number, modules one by one, the default number, and one that is left out."""
    epochs = dict(settings, meta='0', finetune='1')
    put(tmp_path, 'incub', 70.0, phases=[phase('finetune', 100, 70.0)], recipe=recipe(**{
        key if '.' in key else f'train_cfg.phases.{key}.epochs': value for key, value in epochs.items()}))
    row, = rows_of(tmp_path)
    assert missing_phases(row.runs[0]) == [f'module_{i}' for i in range(modules)]
    assert row.total('images_seen') == (None if modules else 100)


def test_the_default_number_of_modules_is_that_of_the_model():
    from mmincubation.incubation import IncubationModel
    assert inspect.signature(IncubationModel).parameters['modules'].default == MODULES


def test_cost_of_dense_tasks_is_counted_in_images(tmp_path):
    curve = [dict(images=at, block_forwards=None, seconds=1.0, metrics={'coco/bbox_mAP': ap})
             for at, ap in ((50, 0.2), (100, 0.4))]
    phases = [phase('train', 100) | dict(block_forwards=None, curve=curve)]
    put(tmp_path, 'incub', 0.4, 'detection', phases=phases)
    put(tmp_path, 'e2e', 0.3, 'detection', phases=[
        phase('train', 150) | dict(block_forwards=None, metrics={'coco/bbox_mAP': 0.3})])
    incub, e2e = rows_of(tmp_path)
    assert share_of_cost(incub, e2e) == 75 / 150
