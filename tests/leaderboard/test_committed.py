"""Tables that pages of the repository hold are those of the results."""
import pytest

from mmincubation.leaderboard.collect import collect
from mmincubation.leaderboard.committed import PageError, check, update
from mmincubation.leaderboard.table import make_sections
from tests.helpers.results import put


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
    said = check(page, folder, sections_of(folder))
    assert 'is stale; renew it by the same command with --update' in said[0] and '  -old' in said
    update(page, folder, sections_of(folder))
    text = page.read_text()
    assert check(page, folder, sections_of(folder)) == []
    assert '| e2e | 50.0 |' in text and '### Classification' in text and '\nold\n' not in text
    assert text.startswith('before\n') and 'between' in text and '\nkept\n' in text and text.endswith('after\n')
    put(folder, 'incub', 60.0)
    said = check(page, folder, sections_of(folder))
    assert '  +| incub | 60.0 |' in said


@pytest.mark.parametrize(('text', 'said'), [
    ('nothing', 'has no table of'), ('<!-- leaderboard results tables -->\nnever closed', 'has no <!-- /leaderboard'),
    ('<!-- leaderboard results tables -->\n<!-- leaderboard results tables -->\n<!-- /leaderboard -->', 'has no <!'),
    ('<!-- leaderboard results -->\n<!-- /leaderboard -->', 'cannot be read; write <!-- leaderboard FOLDER FORM -->'),
    ('<!-- leaderboard "results tables -->\n<!-- /leaderboard -->', 'cannot be read'),
    ('<!-- leaderboard results list -->\n<!-- /leaderboard -->', "unknown form 'list' of a table; there are overview")])
def test_a_page_without_the_table_is_named(page, tmp_path, text, said):
    page.write_text(text)
    with pytest.raises(PageError, match=said) as error:
        check(page, tmp_path / 'results', sections_of(tmp_path / 'results'))
    assert str(page) in str(error.value)


@pytest.mark.parametrize('mark', ['<!-- leaderboard  results  tables -->', '<!--leaderboard results tables -->  ',
                                  '<!-- leaderboard "results" tables -->', '<!-- leaderboard \'re sults\' tables -->'])
def test_marks_may_have_blanks_and_quotes(page, tmp_path, mark):
    folder = tmp_path / ('re sults' if 're sults' in mark else 'results')
    put(folder, 'e2e', 50.0)
    page.write_text(f'{mark}\nold\n<!-- /leaderboard -->\n')
    assert '  -old' in check(page, folder, sections_of(folder))


def test_a_page_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PageError, match='cannot be read'):
        check(tmp_path / 'gone.md', tmp_path, [])
