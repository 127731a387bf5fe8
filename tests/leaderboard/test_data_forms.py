"""JSON and CSV carry the numbers of all rows, and nothing that a spreadsheet would execute."""
import csv
import io
import json
from dataclasses import replace

import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.data_forms import COLUMNS, to_csv, to_json
from mmincubation.leaderboard.reported import Reported, add_reported
from mmincubation.leaderboard.table import make_sections
from tests.helpers.results import put

FOREIGN = Reported('reported', 'detection', 'ViT-B', 'COCO', 'theirs', {'box AP': 44.125, 'mask AP75': 43.1}, 'a paper',
                   cost='3 hours')


@pytest.fixture(name='sections')
def fixture_sections(tmp_path):
    for seed, (e2e, incub) in enumerate([(70., 75.5), (71., 75.)]):
        put(tmp_path, 'e2e', e2e, seed=seed)
        put(tmp_path, 'incub', incub, seed=seed)
    put(tmp_path, 'e2e', 0.5, 'detection', metrics={'coco/bbox_mAP': None})
    return add_reported(make_sections(collect([tmp_path])[0]), [FOREIGN])


def lines_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_has_one_line_for_each_row_and_metric(sections):
    found = lines_of(to_csv(sections))
    assert [(line['kind'], line['method'], line['metric'], line['mean']) for line in found] == [
        ('measured', 'incub', 'top-1', '75.25'), ('measured', 'e2e', 'top-1', '70.5'),
        ('measured', 'e2e', 'box AP', ''), ('reported', 'theirs', 'box AP', '44.125'),
        ('reported', 'theirs', 'mask AP75', '43.1')]
    first, theirs = found[0], found[-1]
    assert (first['seeds'], first['values'], first['n'], first['baseline']) == ('0; 1', '75.5; 75.0', '2', 'e2e')
    assert (first['difference'], first['interval'], first['images']) == ('4.75', 'paired, 2 seeds', '1000.0')
    assert float(first['difference_half_interval']) == pytest.approx(12.706 * 0.75, abs=0.001)
    assert 'no growth or meta-model control' in first['remark'] and 'not measured' in found[2]['remark']
    assert (theirs['source'], theirs['cost'], theirs['n'], theirs['difference']) == ('a paper', '3 hours', '', '')


def test_json_has_the_records_remarks_and_details(sections):
    content = json.loads(to_json(sections))
    classification, detection = content['sections']
    first = classification['rows'][0]
    assert first['metrics']['top-1']['by_seed'] == {'0': [75.5], '1': [75.0]} and first['n'] == 2
    assert 'no growth or meta-model control' in first['remarks']
    assert {detail['title'] for detail in first['details']} == {'Differences from e2e', 'Runs'}
    assert detection['rows'][1]['metrics'] == {'box AP': {'mean': 44.125}, 'mask AP75': {'mean': 43.1}}
    assert detection['rows'][1]['source'] == 'a paper' and len(content['legend']) == 4


def test_equal_results_give_equal_bytes(sections, tmp_path):
    again = add_reported(make_sections(collect([tmp_path])[0]), [FOREIGN])
    assert to_json(again) == to_json(sections) and to_csv(again) == to_csv(sections)
    assert to_json(sections).endswith('}\n') and to_csv(sections).startswith(','.join(COLUMNS) + '\n')


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@SUM(A1)', ' =1', '\t=1', 'a\n=1', 'a,"b"\r\n'])
def test_a_spreadsheet_executes_nothing(tmp_path, name):
    put(tmp_path, 'e2e', 70, experiment=dict(task='classification', model=name, method=name, data=name),
        hardware=name, run='r')
    sections = make_sections(collect([tmp_path])[0])
    text = to_csv(sections)
    line, = lines_of(text)
    assert len(text.splitlines()) == 2 and line['mean'] == '70.0'
    assert not any(cell.lstrip().startswith(tuple('=+-@\t')) for cell in line.values())
    assert all(char.isprintable() or char == '\n' for char in to_json(sections))


def test_negative_numbers_stay_numbers(tmp_path):
    put(tmp_path, 'e2e', 70)
    put(tmp_path, 'incub', 60)
    assert lines_of(to_csv(make_sections(collect([tmp_path])[0])))[1]['difference'] == '-10.0'


def test_remarks_are_not_cut():
    long = replace(FOREIGN, source='a long source ' * 20, note='and a note')
    sections = add_reported([], [long])
    assert lines_of(to_csv(sections))[0]['remark'] == f'{long.source}; and a note'
    assert json.loads(to_json(sections))['sections'][0]['rows'][0]['remarks'] == [long.source, 'and a note']


def test_no_sections():
    assert to_csv([]) == ','.join(COLUMNS) + '\n' and json.loads(to_json([]))['sections'] == []
