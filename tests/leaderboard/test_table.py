"""The tables show what the result files say, and say what a reader must know of each row."""
import re
import shutil

import pytest

from mmincubation.leaderboard.collect import collect, read_pictures
from mmincubation.leaderboard.render import overview, to_markdown, to_text
from mmincubation.leaderboard.table import LEGEND, make_sections
from tests.helpers.results import draw, phase, put


def sections_of(folder, baseline=None):
    return make_sections(collect([folder])[0], baseline)


def line_of(sections, method, task=None):
    (line, ) = [line for section in sections if task in (None, section.task) for line in section.lines
                if line.cells['method'] == method]
    return line


def test_tables_of_all_tasks(tmp_path):
    put(tmp_path, 'incub', 71.26, phases=[phase('meta', 38_400, 52.1, 4), phase('finetune', 2_000_000, 71.26)])
    put(tmp_path, 'incub', 0.431, 'detection', weights=dict(path='w', sha256='1234abcd' * 8, coverage='150/150 keys'))
    put(tmp_path, 'scratch', 20.04, 'segmentation')
    found = sections_of(tmp_path)
    assert [section.title for section in found] == ['Classification', 'Detection', 'Segmentation']
    first, second, third = (section.lines[0].cells for section in found)
    assert first == {'model': 'vit_demo', 'data': 'digits', 'method': 'incub', 'top-1': '71.3', 'Δ top-1': 'baseline',
                     'n': '1', 'images': '2,038,400', 'cost': '32.2 M blocks', 'to baseline': '-'}
    assert (second['box AP'], second['mask AP'], second['cost']) == ('43.1', '38.1', '10 s')
    assert (third['mIoU'], third['aAcc']) == ('20.0', '50.0')
    assert found[1].notes == ['150/150 keys']
    text, markdown = to_text(found), to_markdown(found, [])
    assert '43.1' in text and '| 43.1 |' in markdown and LEGEND[0] in ' '.join(text.split())


@pytest.mark.parametrize('task, title', [('knn', 'k-NN'), ('linear probe', 'Linear probe')])
def test_probes_cost_the_same_and_say_nothing_of_it(tmp_path, task, title):
    put(tmp_path, 'e2e', 60., task), put(tmp_path, 'incub', 62., task)
    section, = sections_of(tmp_path)
    line = line_of([section], 'incub')
    main = section.columns[3]
    assert section.title == title and (line.cells[main], line.cells[f'Δ {main}']) == ('62.0', '+2.0')
    assert line.cells['to baseline'] == '-' and 'no growth control' in line.remark and 'meta-model' not in line.remark


def test_tasks_that_were_not_run_are_not_shown(tmp_path):
    put(tmp_path, 'e2e', 50.0)
    assert [section.task for section in sections_of(tmp_path)] == ['classification']


def test_only_what_the_interval_supports_is_bold(tmp_path):
    for seed in range(3):
        put(tmp_path, 'e2e', 60.0 + seed, seed=seed)
        put(tmp_path, 'sure', 65.0 + seed + 0.1 * seed, seed=seed)
        put(tmp_path, 'unsure', 62.0 - seed, seed=seed)
    put(tmp_path, 'once', 99.0)
    found = sections_of(tmp_path)
    assert {line.cells['method']: set(line.bold) for line in found[0].lines} == {
        'sure': {'Δ top-1'}, 'unsure': set(), 'once': set(), 'e2e': set()}
    assert line_of(found, 'sure').cells['Δ top-1'] == '+5.1 ± 0.2'
    assert line_of(found, 'once').remark == 'one seed: no interval'
    markdown = to_markdown(found, [])
    assert '**+5.1 ± 0.2**' in markdown and markdown.count('**') == 2


def test_any_method_can_be_the_baseline(tmp_path):
    for method, value in dict(mine=70.0, theirs=64.0, e2e=61.5).items():
        put(tmp_path, method, value)
    assert line_of(sections_of(tmp_path), 'mine').cells['Δ top-1'] == '+8.5'
    found = sections_of(tmp_path, 'theirs')
    assert line_of(found, 'mine').cells['Δ top-1'] == '+6.0' and line_of(found, 'e2e').cells['Δ top-1'] == '-2.5'


def test_best_comes_first(tmp_path):
    for method, value in dict(e2e=61.5, incub=70.0, scratch=10.0).items():
        put(tmp_path, method, value)
    assert [line.cells['method'] for line in sections_of(tmp_path)[0].lines] == ['incub', 'e2e', 'scratch']


def test_a_recipe_unlike_the_baselines_is_said(tmp_path):
    put(tmp_path, 'e2e', 0.4, 'detection')
    put(tmp_path, 'mine', 0.5, 'detection', recipe={'optim_wrapper.optimizer.lr': '0.002', 'batch': '64'})
    assert 'unlike e2e: lr 0.002 | 0.001' in line_of(sections_of(tmp_path), 'mine').remark
    start = {'optim_wrapper.optimizer.lr': '0.001', 'batch': '64', 'train_cfg.start': '"grow"'}
    put(tmp_path, 'theirs', 50., recipe=start)
    put(tmp_path, 'incub', 50., recipe=start)
    put(tmp_path, 'e2e', 50.)
    found = sections_of(tmp_path)
    assert 'unlike' not in line_of(found, 'incub', 'classification').remark  # a way to train is the method
    assert 'unlike e2e: start grow | unset' in line_of(found, 'theirs').remark
    line = line_of(found, 'mine')
    assert ('lr', '0.002', '0.001') in next(d for d in line.details if d.title == 'Settings unlike e2e').cells


def test_the_same_seed_twice_is_said_with_the_remedy(tmp_path):
    for year in (2030, 2031):
        put(tmp_path, 'e2e', 50.0, finished_at=f'{year}-01-01T00:00:00+00:00')
    line = line_of(sections_of(tmp_path), 'e2e')
    assert line.cells['n'] == '2' and line.cells['top-1'] == '50.0'
    assert line.remark == 'seed 0 is there 2 times: delete all but one result, or give one another method'


def test_what_was_not_measured_is_a_dash(tmp_path):
    put(tmp_path, 'e2e', 0.0, metrics={}, block_forwards=None)
    put(tmp_path, 'e2e', -1.0, 'detection', metrics={'coco/bbox_mAP': -1.0})
    found = sections_of(tmp_path)
    first, second = line_of(found, 'e2e', 'classification'), line_of(found, 'e2e', 'detection')
    assert first.cells['top-1'] == '-' and 'top-1 not measured: its result has no such number' in first.remark
    assert second.cells['box AP'] == second.cells['mask AP'] == '-'
    assert second.remark == 'box AP not measured: -1, the validation data have no object to find'  # no word of masks


def test_a_seed_that_measured_nothing_is_named_beside_the_mean_of_the_others(tmp_path):
    put(tmp_path, 'e2e', 0.4, 'detection')
    put(tmp_path, 'e2e', -1.0, 'detection', seed=1, metrics={'coco/bbox_mAP': -1.0, 'coco/segm_mAP': -1.0},
        phases=[phase('a', 10), phase('b', 10) | dict(metrics={'coco/bbox_mAP': -1.0})])
    line = line_of(sections_of(tmp_path), 'e2e')
    assert line.cells['box AP'] == '40.0' and line.cells['n'] == '1' and line.record['n'] == 1
    assert 'seed 1: box AP not measured: -1' in line.remark
    assert line.remark.endswith('; 2 more') and len(line.remarks) == 3
    assert ('1', 'b', '1', '10', '10', 'box AP not measured') in line.details[0].cells
    markdown = to_markdown(sections_of(tmp_path), [])
    assert all(remark.partition(':')[0] in markdown for remark in line.remarks)


def test_notes_and_coverage_stand_once(tmp_path):
    weights = dict(path='w', sha256='1' * 64, coverage='150/150 keys')
    note = dict(task='segmentation', model='upernet', data='digits', note='chance is 8')
    for seed in range(2):
        put(tmp_path, 'a', 20.0, 'segmentation', seed=seed, weights=weights, experiment=dict(note, method='a'))
    put(tmp_path, 'b', 20.0, 'segmentation', experiment=dict(note, method='b'))
    assert sections_of(tmp_path)[0].notes == ['chance is 8', 'a: 150/150 keys']


def test_classes_errors_and_sizes_unfold(tmp_path):
    tables = {'box AP by class': {'cat': 40.0, 'dog': None}, 'box errors (TIDE)': {'Cls': 2.0}}
    sized = {'coco/bbox_mAP': 0.4, 'coco/bbox_mAP_s': 0.1, 'coco/bbox_mAP_l': 0.6}
    for seed in range(2):
        put(tmp_path, 'a', 0.4, 'detection', seed=seed, metrics=sized, details=tables)
    details = {detail.title: detail.cells for detail in sections_of(tmp_path)[0].lines[0].details}
    assert details['box AP by class'] == [('cat', '40.0'), ('dog', '-')]
    assert details['box errors (TIDE)'] == [('Cls', '2.0')]
    assert details['AP by size of the objects'] == [('box AP', '10.0', '-', '60.0')]


def test_weights_name_the_run_that_wrote_them(tmp_path):
    put(tmp_path, 'incub', 70.0, outputs=[dict(path='weights/finetune_last.safetensors', sha256='5' * 64)])
    put(tmp_path, 'incub', 20.0, 'segmentation', weights=dict(path='w', sha256='5' * 64, coverage='all'))
    details = {detail.title: detail.cells for detail in sections_of(tmp_path)[1].lines[0].details}
    assert details['Weights'] == [('0', '55555555 (vit_demo_incub)', 'all')]


def test_costs_of_other_machines_are_not_mixed(tmp_path):
    for seed, machine in enumerate(('a CPU', 'a GPU')):
        put(tmp_path, 'e2e', 0.4, 'detection', seed=seed, hardware=machine)
    put(tmp_path, 'mine', 0.4, 'detection')
    found = sections_of(tmp_path)
    assert line_of(found, 'e2e').cells['cost'] == 'several machines'
    assert 'on 1 x a CPU, the baseline on 1 x a CPU, 1 x a GPU' in line_of(found, 'mine').remarks


@pytest.mark.parametrize(('changes', 'said'), [
    (dict(weights=None), '1 of 2 runs began with weights'),
    (dict(weights=dict(path='w', sha256='1' * 64, coverage='some keys')), 'its runs loaded their weights differently'),
    (dict(weights=dict(path='w', sha256='2' * 64, coverage='150/150 keys')), '2 weight files of unknown origin'),
    (dict(images_seen=50), 'its seeds saw 50 to 1,000 images'), (dict(skipped_steps=4000), '4,000 steps skipped'),
    (dict(data_errors=dict(skipped=90, first=[])), '90 training samples skipped'),
    (dict(metrics={'coco/bbox_mAP': 0.4}), 'seed 1: mask AP not measured: its result has no such number'),
    (dict(metrics={'coco/bbox_mAP': 43.1}), 'seed 1: box AP not measured: 43.1 is no share of 1')])
def test_what_seeds_do_not_share_is_said(tmp_path, changes, said):
    weights = dict(path='w', sha256='1' * 64, coverage='150/150 keys')
    put(tmp_path, 'mine', 0.4, 'detection', weights=weights)
    put(tmp_path, 'mine', 0.4, 'detection', seed=1, **(dict(weights=weights) | changes))
    assert said in line_of(sections_of(tmp_path), 'mine').remarks


def test_weights_that_other_rows_wrote_may_differ(tmp_path):
    for seed in range(2):
        output = dict(path='weights/e2e_last.safetensors', sha256=f'{seed}' * 64)
        put(tmp_path, 'e2e', 50.0, seed=seed, outputs=[output])
        put(tmp_path, 'e2e', 0.4, 'detection', seed=seed, weights=dict(output, coverage='all'))
    assert line_of(sections_of(tmp_path), 'e2e', 'detection').remarks == []


def test_one_table_of_all_tasks(tmp_path):
    put(tmp_path, 'incub', 71.26)
    put(tmp_path, 'incub', 0.431, 'detection', experiment=dict(task='detection', model='vit_demo', method='incub'))
    put(tmp_path, 'scratch', 20.0, 'segmentation', experiment=dict(
        task='segmentation', model='vit_demo', method='scratch'))
    assert overview(sections_of(tmp_path)).splitlines() == [
        '| method | top-1 | box AP | mask AP | mIoU |', '| :-- | --: | --: | --: | --: |',
        '| incub | 71.3 | 43.1 | 38.1 | - |', '| scratch | - | - | - | 20.0 |']
    other = dict(train='x', train_size=1, val=None, val_size=None)
    put(tmp_path, 'incub', 60.0, data=other)  # other data of the same name: a column of its own
    assert '71.3' in overview(sections_of(tmp_path)) and '60.0' in overview(sections_of(tmp_path))


def test_models_stand_side_by_side_in_one_metric_of_one_data_set(tmp_path):
    for model, method, value in (('ViT-6', 'e2e', 50.0), ('ViT-6', 'incub', 60.0), ('ViT-12', 'e2e', 70.0)):
        put(tmp_path, method, value, run=f'{model}_{method}', experiment=dict(
            task='classification', model=model, method=method))
    assert overview(sections_of(tmp_path)).splitlines() == [
        '| method | ViT-6: top-1 | ViT-12: top-1 |', '| :-- | --: | --: |',
        '| e2e | 50.0 | 70.0 |', '| incub | 60.0 | - |']
    for model, lr in (('ViT-6', '0.1'), ('ViT-12', '0.2')):
        put(tmp_path, 'grow', 50.0, run=f'{model}_grow', recipe={'optim_wrapper.optimizer.lr': lr, 'x.epochs': lr},
            experiment=dict(task='classification', model=model, method='grow'))
    assert overview(sections_of(tmp_path)).splitlines()[-2:] == ['', '- grow has lr 0.1 (ViT-6), 0.2 (ViT-12)']
    put(tmp_path, 'e2e', 0.4, 'detection', experiment=dict(task='detection', model='ViT-6', method='e2e'))
    assert '| model | method | top-1 | box AP | mask AP |' in overview(sections_of(tmp_path))


def test_forms_are_the_same_at_each_call(tmp_path):
    for method in ('b', 'a', 'c'):
        put(tmp_path, method, 50.0)
    one, two = (to_markdown(sections_of(tmp_path), []) for _ in range(2))
    assert one == two


@pytest.mark.parametrize('evil', [
    '<script>alert(1)</script>', '![x](http://x.org/x.png)', '| a | b |', 'a\nb\n# c', '\x1b[2J', '$\\frac{$', '\ud800',
    '\u202eabc'])
def test_names_cannot_break_out(tmp_path, evil):
    path = put(tmp_path, 'e2e', 50.0, run='r0', seed=3, hardware=evil, recipe={evil: evil}, experiment=dict(
        task='classification', model=evil, method=evil, data=evil, note=evil), phases=[phase(evil, 10, 10.)])
    shutil.copytree(path.parent, tmp_path / 'again')
    put(tmp_path, evil, 50.0, run='r1', experiment=dict(task='classification', model=evil, method=evil, data=evil))
    found = sections_of(tmp_path)
    text, markdown = to_text(found), to_markdown(found, []) + overview(found)
    assert '\x1b' not in text + markdown and '\u202e' not in text + markdown
    assert not re.search(r'(?<!\\)<(script|img)', markdown) and '![x]' not in markdown and '\n# c' not in markdown
    rows = [line for line in to_markdown(found, []).splitlines() if line.startswith('|')]
    assert len({len(re.findall(r'(?<!\\)\|', row)) for row in rows}) == 1


def test_a_result_that_was_sent_alone_lacks_its_pictures_silently(tmp_path):
    put(tmp_path, 'incub', 0.4, 'detection', pictures=['a.png', 'b.png'])
    runs, problems, copies = collect([tmp_path])
    assert len(runs) == 1 and not problems and not copies


def test_bad_pictures_are_named_and_left_out(tmp_path):
    secret = tmp_path / 'secret.png'
    draw(secret, 'secret.png')
    path = put(tmp_path / 'runs', 'incub', 0.4, 'detection', pictures=['gone.png', 'text.png', 'link.png', 'good.png'])
    draw(path, 'good.png')
    (path.parent / 'text.png').write_text('root:x:0:0')
    (path.parent / 'link.png').symlink_to(secret)
    (run, ), problems, _ = collect([tmp_path / 'runs'])
    assert list(run.pictures) == ['good.png'] and read_pictures(path, ['good.png'])[1] == []
    assert len(problems) == 3 and all(str(path) in problem for problem in problems)
