"""Tables that pages of the repository hold are those of the results."""
import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.committed import PageError, check, update
from mmincubation.leaderboard.table import make_sections
from tests.helpers.results import put
from tools.leaderboard import main as leaderboard


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / 'results', 'e2e', 50.0)
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- leaderboard results overview -->\nold\n<!-- /leaderboard -->\nbetween\n'
                    '<!-- leaderboard results tables -->\n<!-- /leaderboard -->\n'
                    '<!-- leaderboard others tables -->\nkept\n<!-- /leaderboard -->\nafter\n')
    return page


def sections_of(folder):
    return make_sections(collect([folder])[0])


def test_a_stale_table_is_found_and_renewed(page, tmp_path):
    folder = tmp_path / 'results'
    said = check(page, folder, sections_of)
    assert 'is stale; renew it by the same command with --update' in said[0] and '  -old' in said
    update(page, folder, sections_of)
    text = page.read_text()
    assert check(page, folder, sections_of) == []
    assert '| e2e | 50.0 |' in text and '### Classification' in text and '\nold\n' not in text
    assert text.startswith('before\n') and 'between' in text and '\nkept\n' in text and text.endswith('after\n')
    put(folder, 'incub', 60.0)
    said = check(page, folder, sections_of)
    assert '  +| incub | 60.0 |' in said


def test_tables_of_folders_below_are_made_of_these_alone(page, tmp_path):
    put(tmp_path / 'results/deep', 'incub', 60.0)
    page.write_text('<!-- leaderboard results/deep overview -->\n<!-- /leaderboard -->\n'
                    '<!-- leaderboard results overview -->\n<!-- /leaderboard -->\n')
    update(page, tmp_path / 'results', sections_of)
    deep, both = page.read_text().split('<!-- leaderboard results overview')
    assert '| incub | 60.0 |' in deep and 'e2e' not in deep and 'incub' in both and 'e2e' in both
    assert check(page, tmp_path / 'results', sections_of) == []
    put(tmp_path / 'results/deep', 'incub', 61.0)
    assert '  -| incub | 60.0 |' in check(page, tmp_path / 'results/deep', sections_of)


@pytest.mark.parametrize('absolute', [False, True])
def test_a_pattern_takes_several_folders(page, tmp_path, capsys, absolute):
    results = tmp_path / 'results' if absolute else 'results'
    for name, value in (('a_1', 61.0), ('a_2', 62.0), ('b_1', 63.0)):
        put(tmp_path / 'results' / name, name, value)
    page.write_text(f'<!-- leaderboard {results}/a_* overview -->\n<!-- /leaderboard -->\n')
    assert leaderboard(['results', '--update', 'page.md']) == 0 == leaderboard(['results', '--check', 'page.md'])
    assert '| a_1 | 61.0 |' in page.read_text() and 'b_1' not in page.read_text() and 'e2e' not in page.read_text()
    page.write_text(f'<!-- leaderboard {results}/c_* overview -->\n<!-- /leaderboard -->\n')
    assert leaderboard(['results', '--check', 'page.md']) == 1


def test_readme_and_docs_are_the_pages(page, tmp_path, capsys):
    for name in ('README.md', 'docs/a/page.md', 'docs/none.md', 'other.md'):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('' if 'none' in name else page.read_text())
    assert leaderboard(['results', '--check']) == 1
    assert leaderboard(['results', '--update']) == 0
    capsys.readouterr()
    assert leaderboard(['results', '--check']) == 0
    assert [line.split(':')[0] for line in capsys.readouterr().out.splitlines()] == ['README.md', 'docs/a/page.md']


@pytest.mark.parametrize(('text', 'said'), [
    ('nothing', 'has no table of'), ('<!-- leaderboard results tables -->\nnever closed', 'has no <!-- /leaderboard'),
    ('<!-- leaderboard results tables -->\n<!-- leaderboard results tables -->\n<!-- /leaderboard -->', 'has no <!'),
    ('<!-- leaderboard results -->\n<!-- /leaderboard -->', 'cannot be read; write <!-- leaderboard FOLDER FORM -->'),
    ('<!-- leaderboard "results tables -->\n<!-- /leaderboard -->', 'cannot be read'),
    ('<!-- leaderboard results list -->\n<!-- /leaderboard -->', "unknown form 'list' of a table; there are overview")])
def test_a_page_without_the_table_is_named(page, tmp_path, text, said):
    page.write_text(text)
    with pytest.raises(PageError, match=said) as error:
        check(page, tmp_path / 'results', sections_of)
    assert str(page) in str(error.value)


@pytest.mark.parametrize('mark', ['<!-- leaderboard  results  tables -->', '<!--leaderboard results tables -->  ',
                                  '<!-- leaderboard "results" tables -->', '<!-- leaderboard \'re sults\' tables -->'])
def test_marks_may_have_blanks_and_quotes(page, tmp_path, mark):
    folder = tmp_path / ('re sults' if 're sults' in mark else 'results')
    put(folder, 'e2e', 50.0)
    page.write_text(f'{mark}\nold\n<!-- /leaderboard -->\n')
    assert '  -old' in check(page, folder, sections_of)


def test_a_page_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PageError, match='cannot be read'):
        check(tmp_path / 'gone.md', tmp_path, sections_of)
