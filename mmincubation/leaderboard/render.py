"""Write the leaderboard as text for a terminal and as Markdown."""
from __future__ import annotations

import re
import textwrap

from .collect import clean
from .table import Section

TITLE = 'Leaderboard'


def to_text(sections: list[Section]) -> str:
    """Return tables with aligned columns; details and differences are below each."""
    return '\n\n'.join(map(section_text, sections)) + '\n'


def section_text(section: Section) -> str:
    """Return one section for the terminal."""
    cells = [[clean(cell) for cell in row] for row in [section.columns, *(line.cells for line in section.lines)]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *rows = ['  '.join(aligned(row, widths)).rstrip() for row in cells]
    text = [section.title, '=' * len(section.title), header, '-' * len(header)]
    for row, line in zip(rows, section.lines, strict=True):
        text += [row, *(indented(detail) for detail in line.details)]
    gaps = ['', *map(clean, section.differences)] if section.differences else []
    return '\n'.join([*text, *gaps])


def indented(detail: str) -> str:
    """Return a remark below a row, in lines that fit a terminal."""
    return textwrap.fill(clean(detail), 110, initial_indent='    ', subsequent_indent='      ')


def aligned(row: list[str], widths: list[int]) -> list[str]:
    """Pad the cells of a row to the widths: names (the first two columns) to the left, numbers to the right."""
    names, numbers = (list(zip(row, widths, strict=True))[columns] for columns in (slice(2), slice(2, None)))
    return [cell.ljust(width) for cell, width in names] + [cell.rjust(width) for cell, width in numbers]


def to_markdown(sections: list[Section], plots: list[str]) -> str:
    """Return tables in GitHub's Markdown, then the plots by the names of their files."""
    blocks = [f'# {TITLE}', *map(section_markdown, sections)]
    blocks += [f'![Top-1 against cost]({name})' for name in plots]
    return '\n\n'.join(blocks) + '\n'


def section_markdown(section: Section) -> str:
    """Return one section in Markdown."""
    rule = [':--' if i < 2 else '--:' for i in range(len(section.columns))]
    rows = [rule if cells is None else map(escaped, cells)
            for cells in [section.columns, None, *(line.cells for line in section.lines)]]
    table = '\n'.join(f'| {" | ".join(row)} |' for row in rows)
    details = [f'- {escaped(line.cells[0])}: {escaped(text)}' for line in section.lines for text in line.details]
    gaps = [f'- **{escaped(difference)}**' for difference in section.differences]
    return '\n\n'.join(filter(None, [f'## {section.title}', table, '\n'.join(gaps), '\n'.join(details)]))


def escaped(text: str) -> str:
    """Escape the text so that Markdown shows it as it is."""
    return re.sub(r'([\\`*\[\]|<>&!~$])', r'\\\1', clean(text))
