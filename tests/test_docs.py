"""What the documentation names exists, and its pages are short and connected."""
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from setuptools import find_packages

import mmincubation
from tests.conftest import FIRST
from tests.helpers.paths import ROOT
from tools.leaderboard import main as leaderboard

DOCS = ROOT / 'docs'
PAGES = [ROOT / 'README.md', *sorted(DOCS.rglob('*.md'))]
LINKING = [*PAGES, ROOT / 'CONTRIBUTING.md', ROOT / 'CHANGELOG.md']


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def links(page: Path) -> list[str]:
    """The files that a page links to, without their anchors."""
    return [link for link in re.findall(r'\]\(([^)#\s]+)', page.read_text()) if '://' not in link]


def rows(text: str) -> list[dict[str, str]]:
    """The rows of all tables in a text, each by its column's name."""
    found, head = [], None
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip().strip('|').split('|')]
        if len(cells) == 1:
            head = None
        elif head is None:
            head = cells
        elif set(''.join(cells)) - set(':- '):
            found.append(dict(zip(head, cells, strict=True)))
    return found


def test_every_promise_has_its_test():
    named = 0
    for page in PAGES:
        file = None
        for given, test in re.findall(r'`((?:\w+/)*test_\w+\.py)?::(test_\w+)`', page.read_text()):
            file = given or file
            assert f'def {test}(' in (ROOT / 'tests' / file).read_text(), f'{page.name}: {file}::{test}'
            named += 1
    assert named > 70


def test_files_that_come_first_exist():
    assert [file for file in FIRST if not (ROOT / 'tests' / file).exists()] == []


@pytest.mark.parametrize('page', LINKING, ids=name)
def test_links_lead_to_files(page):
    assert [link for link in links(page) if not (page.parent / link).exists()] == []


@pytest.mark.parametrize('page', [ROOT / 'README.md', DOCS / 'tour.md'], ids=name)
def test_first_pages_are_short(page):
    assert len(page.read_text().split()) <= 900


def tree() -> list[str]:
    """The paths that the README's tree names."""
    block = (ROOT / 'README.md').read_text().split('```\nmmincubation/\n')[1].split('```')[0]
    names = [(len(line) - len(line.lstrip()), line.split()[0]) for line in block.splitlines()]
    return ['mmincubation/' * (indent > 0) + found for indent, found in names]


def test_the_tree_names_every_package_and_nothing_else():
    assert [path for path in tree() if not (ROOT / path).exists()] == []
    found = [path for path in (ROOT / 'mmincubation').iterdir() if path.name[0] != '_' and any(path.glob('*.py')) or
             path.suffix == '.py' and path.name != '__init__.py']
    assert {f'mmincubation/{path.name}{"/" * path.is_dir()}' for path in found} - set(tree()) == set()


@pytest.mark.parametrize('page', LINKING[:-1], ids=name)
def test_files_that_pages_name_exist(page):
    """The changelog may name what is gone."""
    named = re.findall(r'\b(?:mmincubation|tools|configs|tests|bench)/[\w/]+\.(?:py|sh)\b', page.read_text())
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_page_is_reached_from_the_index():
    reached, left = set(), [DOCS / 'index.md']
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            left += [(page.parent / link).resolve() for link in links(page) if link.endswith('.md')]
    assert set(DOCS.rglob('*.md')) - reached == set()


@pytest.mark.parametrize('page', ['README.md', 'docs/demo.md', 'docs/study.md'])
def test_committed_tables_are_those_of_the_results(page, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert leaderboard(['results', '--check', page]) == 0


def test_the_package_alone_is_installed():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    found = find_packages(ROOT, **project['tool']['setuptools']['packages']['find'])
    assert {package.split('.')[0] for package in found} == {'mmincubation'}
    assert {p.parent.relative_to(ROOT).as_posix().replace('/', '.')
            for p in (ROOT / 'mmincubation').rglob('*.py')} == set(found)


def test_one_version():
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    assert project['project']['dynamic'] == ['version']
    assert project['tool']['setuptools']['dynamic'] == {'version': {'attr': 'mmincubation.__version__'}}
    assert yaml.safe_load((ROOT / 'CITATION.cff').read_text())['version'] == mmincubation.__version__


def test_the_tables_of_the_gpu_page_are_those_of_its_results():
    from bench import gpu_page
    page = gpu_page.PAGE.read_text()
    assert gpu_page.rewritten(page, gpu_page.blocks()) == page
