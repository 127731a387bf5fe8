"""Tables in pages of a repository: compare them with the results that they were made of, and renew them."""
from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Callable
from pathlib import Path

from mmincubation.atomic import write_atomic

from .render import overview, tables
from .table import Section

FORMS: dict[str, Callable[[list[Section]], str]] = {'overview': overview, 'tables': tables}
SectionsOf = Callable[[Path], list[Section]]
BEGIN, END = '<!-- leaderboard {} {} -->', '<!-- /leaderboard -->'
MARK = re.compile(r'<!--\s*leaderboard\b(?P<said>.*?)-->[^\S\n]*\n', re.DOTALL)
SHOWN = 12  # lines of a difference


class PageError(ValueError):
    """A page has no table to compare, or one that cannot be made."""


def pages_with_tables() -> list[Path]:
    """Return README.md and the pages below docs/ that have a table, of the current folder."""
    found = [page for page in [Path('README.md'), *sorted(Path('docs').rglob('*.md'))] if page.is_file()]
    return [page for page in found if MARK.search(page.read_text(encoding='utf-8', errors='replace'))]


def renewed(page: Path, folder: Path, sections_of: SectionsOf) -> tuple[str, str]:
    """Return the text of a page, and the text with its tables of `folder`, and of folders below it, made anew.

    A page names the folder of the results, relative to the current one, and a form of FORMS:
    `<!-- leaderboard results/demo overview -->`, then the table, then `<!-- /leaderboard -->`. Quotes hold a name with
    blanks together, `*` and `?` take several folders. Tables of other folders stay. `sections_of`
    makes the tables of a folder.

    Raises:
        PageError: the page cannot be read, has no such table, or a mark that cannot be read.
    """
    try:
        text = page.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise PageError(f'{page} cannot be read: {error}') from None
    new, at, mine = [], 0, 0
    for mark in MARK.finditer(text):
        place, form = _parts(page, mark)
        end = text.find(END, mark.end())
        if end < 0 or MARK.search(text, mark.end(), end):
            raise PageError(f'{page}: {mark.group().strip()} has no {END}; write it below the table')
        if Path(place).resolve().is_relative_to(folder.resolve()):
            mine += 1
            new += [text[at:mark.end()], FORMS[form](sections_of(Path(place))), '\n']
            at = end
    if not mine:
        begin = BEGIN.format(shlex.quote(str(folder)), 'tables')
        raise PageError(f'{page} has no table of {folder}: give it the lines {begin} and {END}')
    return text, ''.join([*new, text[at:]])


def _parts(page: Path, mark: re.Match) -> tuple[str, str]:
    """Return folder and form of a mark."""
    try:
        words = shlex.split(mark['said'])
    except ValueError:
        words = []
    if len(words) != 2:
        raise PageError(f'{page}: {mark.group().strip()!r:.90} cannot be read; write {BEGIN.format("FOLDER", "FORM")}')
    if words[1] not in FORMS:
        raise PageError(f'{page}: unknown form {words[1]!r} of a table; there are {", ".join(FORMS)}')
    return words[0], words[1]


def check(page: Path, folder: Path, sections_of: SectionsOf) -> list[str]:
    """Return what differs between a page's tables and the results; [] if nothing does.

    Raises:
        PageError: as `renewed`.
    """
    old, new = renewed(page, folder, sections_of)
    if old == new:
        return []
    changed = [line for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm='', n=0)
               if not line.startswith(('---', '+++', '@@'))]
    return [f'{page}: its table of {folder} is stale; renew it by the same command with --update for --check',
            *(f'  {line}' for line in changed[:SHOWN])]


def update(page: Path, folder: Path, sections_of: SectionsOf) -> None:
    """Write the tables of a page anew.

    Raises:
        PageError: as `renewed`.
    """
    old, new = renewed(page, folder, sections_of)
    if old != new:
        write_atomic(page, new.encode())
