"""What the documentation names exists."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]


def test_every_promise_has_its_test():
    named = 0
    for page in PAGES:
        file = None
        for name, test in re.findall(r'`(test_\w+\.py)?::(test_\w+)`', page.read_text()):
            file = name or file
            assert f'def {test}(' in (ROOT / 'tests' / file).read_text(), f'{page.name}: {file}::{test}'
            named += 1
    assert named > 70


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    links = [link for link in re.findall(r'\]\(([^)#\s]+)', page.read_text()) if '://' not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
