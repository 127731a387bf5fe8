"""tools/leaderboard.py: its forms, its files and its exit codes."""
import json
import subprocess
import sys

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.results import put
from tools.leaderboard import main

ENTRY = """
- {task: classification, model: vit_demo, data: digits, method: theirs, metrics: {top-1: 71.5}, source: their page}
"""


def test_it_prints_the_table_and_writes_the_files(tmp_path, capsys):
    put(tmp_path / 'runs', 'e2e', 50.0)
    assert main([str(tmp_path / 'runs'), '--out', str(tmp_path / 'out')]) == 0
    printed = capsys.readouterr()
    assert 'e2e' in printed.out and '50.0' in printed.out and not printed.err
    assert sorted(file.name for file in (tmp_path / 'out').iterdir()) == ['leaderboard.html', 'leaderboard.md']


def test_broken_files_and_copies_are_named(tmp_path, capsys):
    text = put(tmp_path / 'runs', 'e2e', 50.0).read_text()
    for name, content in (('broken', '{"schema": NaN}'), ('copy', text)):
        (tmp_path / 'runs' / name).mkdir()
        (tmp_path / 'runs' / name / 'result.json').write_text(content)
    assert main([str(tmp_path / 'runs')]) == 1
    printed = capsys.readouterr()
    assert '50.0' in printed.out and len(printed.err.splitlines()) == 2
    assert 'broken/result.json' in printed.err and 'is a copy of' in printed.err


def test_several_folders_other_people_and_the_paper(tmp_path, capsys):
    put(tmp_path / 'a', 'e2e', 50.0)
    put(tmp_path / 'b', 'e2e', 52.0, seed=1)
    (tmp_path / 'b/reported.yaml').write_text(ENTRY)
    assert main([str(tmp_path / 'a'), str(tmp_path / 'b'), '--format', 'json', '--with-paper']) == 0
    sections = json.loads(capsys.readouterr().out)['sections']
    records = [record for section in sections for record in section['rows']]
    ours, = (record for record in records if record['kind'] == 'measured')
    assert ours['n'] == 2 and ours['metrics']['top-1']['mean'] == 51
    assert [record['method'] for record in records if record['kind'] == 'reported'] == ['theirs']
    assert any(record['kind'] == 'quoted' and record['model'] == 'ViT-H' for record in records)
    assert not list(tmp_path.rglob('leaderboard*'))


@pytest.mark.parametrize('form', ['html', 'md', 'csv', 'json', 'latex'])
def test_each_form_is_printed_alike_twice(tmp_path, capsys, form):
    put(tmp_path, 'e2e', 50.0)
    said = []
    for _ in range(2):
        assert main([str(tmp_path), '--format', form]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1] and 'vit' in said[0]


@pytest.mark.parametrize(('options', 'said'), [
    (['--baseline', 'e2f'], '--baseline e2f: no run has this method; nearest: e2e'),
    (['--check', 'page.md'], 'page.md cannot be read')])
def test_wrong_options_are_one_line(tmp_path, capsys, options, said):
    put(tmp_path, 'e2e', 50.0)
    assert main([str(tmp_path), *options]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and len(printed.err.splitlines()) == 1 and not printed.out


def test_a_stale_page_is_exit_code_1_until_it_is_updated(tmp_path, capsys):
    put(tmp_path / 'runs', 'e2e', 50.0)
    page = tmp_path / 'page.md'
    page.write_text(f'<!-- leaderboard {tmp_path}/runs overview -->\n<!-- /leaderboard -->\n')
    options = [str(tmp_path / 'runs'), '--check', str(page)]
    assert main(options) == 1 and 'is stale; renew it' in capsys.readouterr().err
    assert main([str(tmp_path / 'runs'), '--update', str(page)]) == 0
    assert main(options) == 0


def test_it_says_that_there_is_nothing(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert 'no result.json below' in capsys.readouterr().err
    assert main([str(tmp_path / 'missing')]) == 2
    assert 'there is no such folder or file' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_it_needs_no_torch_and_no_mm():
    code = ('import sys; from mmincubation.leaderboard import board; '
            'print([m for m in ("torch", "mmengine", "mmcv", "numpy", "matplotlib", "scipy") if m in sys.modules])')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == '[]'
