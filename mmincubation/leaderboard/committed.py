"""Tables in pages of a repository: compare them with the results that they were made of, and renew them."""
from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from pathlib import Path

from mmincubation.atomic import write_atomic

from .render import overview, tables
from .table import Section

FORMS: dict[str, Callable[[list[Section]], str]] = {'overview': overview, 'tables': tables}
EXAMPLE = '<!-- leaderboard {} tables -->\n<!-- /leaderboard -->'
BLOCK = re.compile(r'(?P<begin><!-- leaderboard (?P<folder>\S+) (?P<form>\S+) -->\n)(?P<table>.*?)'
                   r'(?P<end><!-- /leaderboard -->)', re.DOTALL)
SHOWN = 12  # lines of a difference


class PageError(ValueError):
    """A page has no table to compare, or one that cannot be made."""


def renewed(page: Path, folder: Path, sections: list[Section]) -> tuple[str, str]:
    """Return the text of a page, and the text with its tables of `folder` made anew.

    A page names the folder of the results, relative to the current one, and a form of FORMS:
    `<!-- leaderboard results/demo overview -->`, then the table, then `<!-- /leaderboard -->`.

    Raises:
        PageError: the page cannot be read, has no such table, or names an unknown form.
    """
    try:
        text = page.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise PageError(f'{page} cannot be read: {error}') from None
    mine = [block for block in BLOCK.finditer(text) if Path(block['folder']).resolve() == folder.resolve()]
    if not mine:
        raise PageError(f'{page} has no table of {folder}: give it these two lines: '
                        + EXAMPLE.format(folder).replace('\n', ' and '))
    new = text
    for block in mine:
        if block['form'] not in FORMS:
            raise PageError(f'{page}: unknown form {block["form"]!r} of a table; there are {", ".join(FORMS)}')
        new = new.replace(block.group(), f'{block["begin"]}{FORMS[block["form"]](sections)}\n{block["end"]}')
    return text, new


def check(page: Path, folder: Path, sections: list[Section]) -> list[str]:
    """Return what differs between a page's tables and the results, and the remedy; [] if nothing does.

    Raises:
        PageError: as `renewed`.
    """
    old, new = renewed(page, folder, sections)
    if old == new:
        return []
    changed = [line for line in difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm='', n=0)
               if not line.startswith(('---', '+++', '@@'))]
    return [f'{page}: its table of {folder} is stale; renew it: python tools/leaderboard.py {folder} --update {page}',
            *(f'  {line}' for line in changed[:SHOWN])]


def update(page: Path, folder: Path, sections: list[Section]) -> None:
    """Write the tables of a page anew.

    Raises:
        PageError: as `renewed`.
    """
    old, new = renewed(page, folder, sections)
    if old != new:
        write_atomic(page, new.encode())
