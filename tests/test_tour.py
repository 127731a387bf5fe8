"""docs/tour.md names `path:line text`: each points at what it names. `python -m tests.test_tour` renews the lines."""
import re

import pytest

from tests.helpers.paths import ROOT

TOUR = ROOT / 'docs/tour.md'
REFERENCE = re.compile(r'`([\w/.]+\.\w+):(\d+) ([^`]+)`')


def place(path: str, text: str) -> int:
    """The first line of a file that has the text."""
    lines = (ROOT / path).read_text().splitlines()
    return next(i for i, line in enumerate(lines, 1) if re.search(rf'\b{re.escape(text)}\b', line))


def references() -> list[tuple[str, str, str]]:
    return REFERENCE.findall(TOUR.read_text())


def test_there_are_references():
    assert len(references()) > 25


@pytest.mark.parametrize('path, line, text', references())
def test_a_reference_points_at_what_it_names(path, line, text):
    assert place(path, text) == int(line), f'{path}:{line} {text}; python -m tests.test_tour renews the numbers'


if __name__ == '__main__':
    TOUR.write_text(REFERENCE.sub(lambda m: f'`{m[1]}:{place(m[1], m[3])} {m[3]}`', TOUR.read_text()))
