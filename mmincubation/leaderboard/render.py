"""Write the leaderboard as text for a terminal and as Markdown."""
from __future__ import annotations

import re
import textwrap
from itertools import count

from mmincubation.errors import clean
from mmincubation.result import METRICS

from .rows import differing_keys, labelled, settings_apart
from .table import LEGEND, Line, Section

TITLE = 'Leaderboard'
NAMES = 3  # columns of names; numbers follow


def to_text(sections: list[Section]) -> str:
    """Return tables with aligned columns, a remark below each row, and what is said once at the end."""
    return '\n\n'.join([*map(section_text, sections), '\n'.join(map(wrapped, LEGEND))]) + '\n'


def section_text(section: Section) -> str:
    """Return one section for the terminal."""
    cells = [[clean(cell) for cell in row] for row in [section.columns, *map(list, values(section))]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    header, *rows = ['  '.join(aligned(row, widths)).rstrip() for row in cells]
    text = [section.title, '=' * len(section.title), header, '-' * len(header)]
    for row, line in zip(rows, section.lines, strict=True):
        text += [row, *([f'    {clean(line.remark)}'] if line.remark else [])]
    return '\n'.join([*text, *(['', *map(wrapped, section.notes)] if section.notes else [])])


def values(section: Section) -> list[list[str]]:
    """Return the cells of a section's lines in the order of its columns."""
    return [[line.cells[column] for column in section.columns] for line in section.lines]


def wrapped(text: str) -> str:
    """Return a text in lines that fit a terminal."""
    return textwrap.fill(clean(text), 116, subsequent_indent='  ')


def aligned(row: list[str], widths: list[int]) -> list[str]:
    """Pad the cells of a row to the widths: names to the left, numbers to the right."""
    pairs = list(zip(row, widths, strict=True))
    return [cell.ljust(width) for cell, width in pairs[:NAMES]] + [cell.rjust(width) for cell, width in pairs[NAMES:]]


def to_markdown(sections: list[Section], plots: list[str]) -> str:
    """Return tables in GitHub's Markdown, then the plots by the names of their files."""
    blocks = [f'# {TITLE}', tables(sections, '##'), *(f'![Accuracy against cost]({name})' for name in plots)]
    return '\n\n'.join(blocks) + '\n'


def tables(sections: list[Section], heading: str = '###') -> str:
    """Return the tables of all tasks, and what is said once for all."""
    return '\n\n'.join([*(section_markdown(section, heading) for section in sections), bullets(LEGEND)])


def section_markdown(section: Section, heading: str) -> str:
    """Return one section in Markdown; the last column of its table has the remarks."""
    columns = [*section.columns, 'remarks']
    rows = [[*(bold(cell) if column in line.bold else escaped(cell)
               for column, cell in zip(section.columns, cells, strict=True)), escaped('; '.join(line.remarks))]
            for line, cells in zip(section.lines, values(section), strict=True)]
    table = markdown_table(columns, rows, {*section.columns[NAMES:]})
    return '\n\n'.join(filter(None, [f'{heading} {section.title}', table, bullets(section.notes)]))


def markdown_table(columns: list[str], rows: list[list[str]], numbers: set[str]) -> str:
    """Return a table; `rows` are Markdown already, columns of `numbers` are aligned to the right."""
    rule = ['--:' if column in numbers else ':--' for column in columns]
    return '\n'.join(f'| {" | ".join(row)} |' for row in [[escaped(column) for column in columns], rule, *rows])


def bullets(texts) -> str:
    """Return a list in Markdown."""
    return '\n'.join(f'- {escaped(text)}' for text in texts)


def bold(text: str) -> str:
    """Return the text in bold Markdown."""
    return f'**{escaped(text)}**'


def overview(sections: list[Section]) -> str:
    """Return one Markdown table of all tasks: a row for each model and method, a column for each metric of each data.

    The name of the model is there where models differ: of one metric of one data set each model has a column. There a
    method has a row for each setting in which its results of one model differ; where each model has one result of it,
    settings of the optimiser that differ along its row are named below. Rows of equal names stay apart.
    """
    lines = [(section, line) for section in sections for line in section.lines]
    data = {section.task: {line.cells['data'] for line in section.lines} for section in sections}
    several = len({line.cells['model'] for _, line in lines}) > 1
    side_by_side = several and len(sections) == len(data[sections[0].task]) == len(_shown(sections[0])) == 1
    columns, rows, along = [], {}, {}
    labels = _labels([line for _, line in lines]) if side_by_side else {}
    for section, line in lines:
        own = {}
        for title in _shown(section):
            column = title if len(data[section.task]) == 1 else f'{title}, {line.cells["data"]}'
            column = f'{line.cells["model"]}: {title}' if side_by_side else column
            columns += [] if column in columns else [column]
            own[column] = line.cells[title]
        names = '' if side_by_side else line.cells['model'], labels.get(id(line), line.cells['method'])
        number = next(i for i in count() if not own.keys() & rows.get((*names, i), {}).keys())
        rows.setdefault((*names, number), {}).update(own)
        along.setdefault((*names, number), []).append(line)
    columns = sorted(columns, key=_by_numbers) if side_by_side else columns
    head = ['model'] * (several and not side_by_side) + ['method']
    cells = [[*map(escaped, names[-len(head) - 1:-1]), *(escaped(row.get(column, '-')) for column in columns)]
             for names, row in rows.items()]
    notes = [note for (_, name, _), same in along.items() for note in _optimiser_apart(name, same)
             ] if side_by_side else []
    return '\n\n'.join(filter(None, [markdown_table([*head, *columns], cells, {*columns}), bullets(notes)]))


def _labels(lines: list[Line]) -> dict[int, str]:
    """Return a method's name for each of our lines, by `id`: with all settings that differ for any one model."""
    methods: dict[str, list[Line]] = {}
    for line in lines:
        if line.runs:
            methods.setdefault(line.runs[0].method, []).append(line)
    found = {}
    for method, same in methods.items():
        several = {key for model in {line.cells['model'] for line in same}
                   for key in differing_keys([_recipe(line) for line in same if line.cells['model'] == model])}
        apart = settings_apart([{key: _recipe(line).get(key) for key in several} for line in same])
        for line, own in zip(same, apart, strict=True):
            found[id(line)] = labelled(method, own)
    return found


def _recipe(line: Line) -> dict[str, str]:
    return line.runs[0].result.get('recipe') or {}


def _optimiser_apart(method: str, lines: list[Line]) -> list[str]:
    """Name the settings of the optimiser in which lines of one name but of several models differ."""
    lines = sorted((line for line in lines if line.runs), key=lambda line: _by_numbers(line.cells['model']))
    found = settings_apart([{key: value for key, value in _recipe(line).items() if key.startswith('optim_wrapper.')}
                            for line in lines])
    return [f'{method} has {name} ' + ', '.join(
        f'{own[name]} ({line.cells["model"]})' for line, own in zip(lines, found, strict=True))
        for name in (found[0] if found else {})]


def _by_numbers(text: str) -> list[tuple[int, str]]:
    """Sort ViT-6 before ViT-12, and 360 before 1,080."""
    return [(int(part.replace(',', '')), '') if i % 2 else (0, part)
            for i, part in enumerate(re.split(r'(\d[\d,]*)', text))]


def _shown(section: Section) -> list[str]:
    return [title for title, _, _ in METRICS[section.task][:2 if section.task == 'detection' else 1]]


def escaped(text: str) -> str:
    """Escape the text so that Markdown shows it as it is."""
    return re.sub(r'([\\`*\[\]|<>&!~$])', r'\\\1', clean(text))
