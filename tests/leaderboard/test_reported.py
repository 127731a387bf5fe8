"""Other people's results are checked with all faults at once, and stand beside ours without being merged."""
import re
from dataclasses import replace

import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.reported import (
    PERCENT,
    Reported,
    add_reported,
    collect_reported,
    read_reported,
    reported_files,
)
from mmincubation.leaderboard.table import columns_of, make_sections
from tests.helpers.paths import ROOT
from tests.helpers.results import put

ENTRY = '{task: classification, model: vit_demo, data: digits, method: e2e, metrics: {top-1: 70.25}, source: a paper}'


def write(path, *entries):
    path.write_text(''.join(f'- {entry}\n' for entry in entries))
    return path


def faults_of(path, text) -> list[str]:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    entries, faults = read_reported(path, 'reported')
    assert not entries and all(fault.startswith(f'{path}: ') and '\n' not in fault for fault in faults)
    return [fault.removeprefix(f'{path}: ') for fault in faults]


def test_all_faults_at_once(tmp_path):
    faults = faults_of(tmp_path / 'r.yaml', """
- {task: detecton, model: ViT-B, data: COCO, method: e2e, metrics: {box AP: 44}, source: a}
- {task: detection, modle: ViT-B, data: COCO, method: e2e, metrics: {box AP: 440, bbox AP: 1, mask AP: true}, source: a}
- {task: classification, model: ViT-B, data: 5, method: e2e, metrics: {top-1: 0.457, top-5: .nan}, source: ' '}
- {task: classification, model: ViT-B, data: x, method: e2e, metrics: {top-1: 0.457}, source: 2020-01-01}
- {task: [a], model: ViT-B, data: x, method: e2e, metrics: 5, source: a, note: }
- text
- {}
""")
    assert faults == [
        "entry 1 (ViT-B e2e): `task` is 'detecton'; nearest: detection",
        'entry 2 (e2e): `modle` is not a field; nearest: model',
        'entry 2 (e2e): `model` is missing; add it',
        'entry 2 (e2e): metric `box AP` is 440; metrics are percent, from 0 to 100',
        'entry 2 (e2e): metric `bbox AP` is not one of detection; nearest: box AP',
        'entry 2 (e2e): metric `mask AP` is True, not a number; write one such as 81.8',
        'entry 3 (ViT-B e2e): `data` is 5, not text; write it in quotes',
        'entry 3 (ViT-B e2e): metric `top-5` is nan; metrics are percent, from 0 to 100',
        'entry 3 (ViT-B e2e): `source` is empty; fill it in',
        'entry 4 (ViT-B e2e): metric `top-1` is 0.457; metrics are percent: 0.457 -> 45.7?',
        'entry 4 (ViT-B e2e): `source` is datetime.date(2020, 1, 1), not text; write it in quotes',
        'entry 5 (ViT-B e2e): `task` is a list of 1, not text; write it in quotes',
        'entry 5 (ViT-B e2e): `metrics` is 5, not a mapping such as {top-1: 81.8}; write one',
        'entry 5 (ViT-B e2e): `note` is empty, not text; write it in quotes',
        "entry 6: is 'text', not a mapping; give it the fields task, model, data, method, metrics, source",
        *(f'entry 7: `{key}` is missing; add it' for key in ('task', 'model', 'data', 'method', 'metrics', 'source'))]


@pytest.mark.parametrize('text, fault', [
    ('', 'it is empty, not a list of entries; begin each entry with "- "'),
    ('task: detection', 'it is one mapping, not a list of entries; begin each entry with "- "'),
    ('[]: [', 'line 1 is not YAML: '),
    ('- {a: b\n- c', 'line 2 is not YAML: '),
    ('- &a [x]\n- *a', 'line 2: aliases (*name) and tags (!name) are not read; write the value as it is'),
    ('- !!python/object/apply:os.system [touch x]', 'line 1: aliases (*name) and tags (!name) are not read; '),
    ('- task: a\n  task: b', 'line 2: `task` is there twice in one entry; begin each entry with "- "'),
    (b'- \xff', 'byte 2 is not UTF-8; save the file as UTF-8'),
    ('- \x00', 'unacceptable character'),
    ('[' * 2000, 'it is nested too deeply'),
    ('- ' + 'a' * (1 << 20), 'it is larger than 1 MiB; split it'),
    (f'- {"9" * 5000}', 'Exceeds the limit'),
    ('- 2024-99-99', 'month must be in 1..12')])
def test_files_that_are_no_list_of_entries(tmp_path, text, fault):
    faults = faults_of(tmp_path / 'r.yaml', text)
    assert len(faults) == 1 and faults[0].startswith(fault)


def test_hostile_values_are_cut_and_stay_on_one_line(tmp_path):
    huge = f'0x{"f" * 5000}'
    text = f'- ? {huge}\n  : {huge}\n  "a\\e[31m": 1\n  metrics:\n    ? {huge}\n    : {huge}\n'
    faults = faults_of(tmp_path / 'r.yaml', text)
    assert len(faults) == 8 and all(len(fault) < 200 and '\x1b' not in fault for fault in faults)


def test_a_missing_file_and_a_folder(tmp_path):
    assert read_reported(tmp_path / 'a.yaml', 'reported') == ([], [
        f'{tmp_path}/a.yaml: cannot be read: No such file or directory; name a file that is there and readable'])
    assert 'Is a directory' in read_reported(tmp_path, 'reported')[1][0]


def test_valid_entries_stay_and_duplicates_are_named(tmp_path):
    other = ENTRY.replace('a paper', 'another paper')
    entries, faults = read_reported(write(tmp_path / 'r.yaml', ENTRY, ENTRY.replace('70.25', '80'), other), 'reported')
    assert [entry.source for entry in entries] == ['a paper', 'another paper']
    assert faults == [f'{tmp_path}/r.yaml: entry 2 (vit_demo e2e): has the same task, model, data, method and source '
                      'as entry 1; delete one, or give one another method']


def test_files_are_found_by_name_or_given_each_once(tmp_path):
    (tmp_path / 'a').mkdir()
    found = write(tmp_path / 'a' / 'reported.yaml', ENTRY)
    given = write(tmp_path / 'other.yaml', ENTRY.replace('a paper', 'b'))
    assert reported_files(tmp_path) == [found] and reported_files(given) == [given]
    assert reported_files(tmp_path / 'result.json') == []
    (tmp_path / 'copy').mkdir()
    write(tmp_path / 'copy' / 'reported.yaml', ENTRY)
    entries, faults = collect_reported([tmp_path, found, given, tmp_path / 'a'])
    assert [entry.source for entry in entries] == ['a paper', 'b'] and not faults


def test_never_merged_never_a_baseline(tmp_path):
    """A foreign row of equal names changes none of ours."""
    put(tmp_path, 'e2e', 70, seed=0)
    put(tmp_path, 'incub', 75, seed=0)
    ours = make_sections(collect([tmp_path])[0])
    entries, _ = read_reported(write(tmp_path / 'reported.yaml', ENTRY), 'reported')
    section, = add_reported(ours, entries)
    assert [line for line in section.lines if line.runs] == ours[0].lines and len(ours[0].lines) == 2
    line = section.lines[-1]
    assert line.cells == dict.fromkeys(section.columns, '-') | dict(
        model='vit_demo', data='digits', method='e2e (reported)') | {'top-1': '70.2'}
    assert (line.kind, line.remark, line.bold) == ('reported', 'a paper', frozenset())
    assert line.details[0].cells == [('top-1', '70.25')] and line.record['metrics'] == {'top-1': dict(mean=70.25)}
    assert section.notes == ['(reported): a number of other people, not run here.']


def test_foreign_rows_stand_beside_their_model_and_data(tmp_path):
    put(tmp_path, 'e2e', 70, experiment=dict(task='classification', model='A', method='e2e', data='digits'))
    put(tmp_path, 'e2e', 70, experiment=dict(task='classification', model='B', method='e2e', data='digits'))
    entries, _ = read_reported(write(tmp_path / 'reported.yaml', *(
        ENTRY.replace('vit_demo', model).replace('e2e', method) for model, method in [
            ('C', 'x'), ('A', 'y'), ('A', 'z')])), 'reported')
    section, = add_reported(make_sections(collect([tmp_path])[0]), entries)
    assert [(line.cells['model'], line.cells['method']) for line in section.lines] == [
        ('A', 'e2e'), ('A', 'y (reported)'), ('A', 'z (reported)'), ('B', 'e2e'), ('C', 'x (reported)')]


def test_a_task_without_runs_gets_a_section_and_other_metrics_unfold(tmp_path):
    entries, faults = read_reported(write(
        tmp_path / 'r.yaml', '{task: segmentation, model: ViT-L, data: ADE20K, method: "a\n\n  b", source: s, '
        'cost: 3 hours, metrics: {mAcc: 58.5, mIoU: 47.0}, note: n}'), 'quoted')
    section, = add_reported([], entries)
    line, = section.lines
    assert section.columns == columns_of('segmentation') and not faults
    assert line.cells | {} == dict.fromkeys(section.columns, '-') | dict(
        model='ViT-L', data='ADE20K', method='a b*', mIoU='47.0', cost='3 hours')
    assert line.details[0].cells == [('mIoU', '47.0'), ('mAcc', '58.5')] and line.remark == 's; n'


def test_a_long_source_unfolds_and_notes_stand_once():
    entry = Reported('reported', 'detection', 'm', 'd', 'x', {'box AP': 40.0}, 'source ' * 30, note='a note')
    section, = add_reported(add_reported([], [entry]), [replace(entry, kind='quoted'), entry])
    assert len(section.lines) == 3 and len(section.notes) == 2
    line = section.lines[0]
    assert line.remark.endswith('...; 1 more') and line.remarks == ['source ' * 30, 'a note']


def test_the_example_of_the_page_is_valid(tmp_path):
    page = (ROOT / 'docs/guides/leaderboard.md').read_text()
    example, = re.findall(r'```yaml\n(.*?)```', page, re.S)
    (tmp_path / 'reported.yaml').write_text(example)
    entries, faults = collect_reported([tmp_path])
    assert not faults and [entry.method for entry in entries] == ['mae']
    assert set(re.findall(r'`(top-\d|mIoU.*?|mAcc|aAcc|box AP|mask AP)`', page)) <= {
        title for titles in PERCENT.values() for title in titles}
    assert len(page.split()) < 600
