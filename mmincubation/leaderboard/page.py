"""Write the leaderboard as one HTML file that needs no other file."""
from __future__ import annotations

import hashlib
import html
import re
from base64 import b64encode
from collections.abc import Iterable
from pathlib import Path

from mmincubation.errors import clean

from .collect import TASKS, Run
from .details import Detail
from .render import NAMES, TITLE
from .table import LEGEND, Line, Section

FOLDER = Path(__file__).parent
NARROW = 5  # a phone shows these columns beside each other; model and data are moved below the method
UNITS = {'k': 1e3, 'M': 1e6, 'G': 1e9, 'T': 1e12}


def to_html(sections: list[Section], plots: list[bytes]) -> str:
    """Return the page: filters, a table for each task, the plots (PNG), and the legend."""
    style, script = ((FOLDER / name).read_text(encoding='utf-8') for name in ('page.css', 'page.js'))
    body = [f'<h1>{TITLE}</h1>\n', filters(sections), *map(section_html, sections), plots_html(plots), legend_html()]
    return (f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy(style, script)}">\n'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{TITLE}</title>\n'
            f'<style>{style}</style>\n</head>\n<body>\n{"".join(body)}<script>{script}</script>\n</body>\n</html>\n')


def policy(style: str, script: str | None = None) -> str:
    """Return the policy of a page that may use this style, this script and the pictures that it carries, no more."""
    hashes = [b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script or '')]
    return (f"default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src 'sha256-{hashes[0]}'"
            + (f"; script-src 'sha256-{hashes[1]}'" if script is not None else ''))


def text(value: object) -> str:
    """Return any value as HTML text, also for an attribute."""
    return html.escape(clean(str(value)))


def names(section: Section, line: Line) -> dict[str, str]:
    """Return what the filters choose a line by."""
    return {'task': section.task, 'model': line.cells['model'], 'data': line.cells['data'],
            'method': line.record['method']}


def filters(sections: list[Section]) -> str:
    """Return a choice for each name in which lines differ; hidden, because only the script makes it work."""
    found = [names(section, line) for section in sections for line in section.lines]
    choices = ''
    for name in ('task', 'model', 'data', 'method'):
        values = {own[name] for own in found}
        order = [task for task in TASKS if task in values] if name == 'task' else sorted(values)
        options = ''.join(f'<option value="{text(value)}">{text(value)}</option>' for value in ['all', *order])
        if len(values) > 1:
            choices += f'<label>{name} <select name="{name}" autocomplete="off">{options}</select></label>\n'
    count = '<output></output>' if choices else ''
    return f'<div class="filters" role="group" aria-label="Filters" hidden>\n{choices}{count}</div>\n'


def section_html(section: Section) -> str:
    """Return the table of one task and its notes."""
    spread = [any(' ± ' in line.cells[column] for line in section.lines) for column in section.columns]
    lines = ''.join(line_html(section, line, spread) for line in section.lines)
    head = ''.join(f'<th scope="col"{column_class(i)}>{text(title)}</th>' for i, title in enumerate(section.columns))
    notes = ''.join(f'<li>{text(note)}</li>' for note in section.notes)
    return (f'<section>\n<h2>{text(section.title)}</h2>\n<div class="scroll"><table class="board">\n'
            f'<thead><tr>{head}</tr></thead>\n{lines}</table></div>\n'
            + (f'<ul class="notes">{notes}</ul>\n' if notes else '') + '</section>\n')


def column_class(index: int) -> str:
    """Return the attribute that says whether a column has numbers, and whether a phone shows it beside the others."""
    kinds = ['number'] * (index >= NAMES) + ['wide'] * (index >= NARROW or index < NAMES - 1)
    return f' class="{" ".join(kinds)}"' if kinds else ''


def line_html(section: Section, line: Line, spread: list[bool]) -> str:
    """Return one line as a body of its own, so that its details move with it.

    `spread` says for each column whether a cell of it has an interval.
    """
    cells = ''.join(cell_html(section, line, i, spread[i]) for i in range(len(section.columns)))
    attributes = ''.join(f' data-{name}="{text(value)}"' for name, value in names(section, line).items())
    more = more_html(section, line)
    below = f'<tr class="more"><td colspan="{len(section.columns)}">{more}</td></tr>\n' if more else ''
    return f'<tbody class="{line.kind}"{attributes}>\n<tr class="row">{cells}</tr>\n{below}</tbody>\n'


def cell_html(section: Section, line: Line, index: int, spread: bool) -> str:
    """Return one cell; `data-value` is what it is sorted by."""
    column = section.columns[index]
    own = line.cells[column]
    if index >= NAMES:
        content = number_html(own, column in line.bold, spread)
        # The cost of a row that was not measured is text in any unit.
        value = sort_value(own) if line.kind == 'measured' or column != 'cost' else ''
    else:
        content, value = text(own), own
    if index == NAMES - 1:
        context = f'<span class="context">{text(line.cells["model"])} · {text(line.cells["data"])}</span>'
        return f'<th scope="row" data-value="{text(value)}">{content}{context}</th>'
    return f'<td{column_class(index)} data-value="{text(value)}">{content}</td>'


def number_html(cell: str, bold: bool, spread: bool) -> str:
    """Return a number; in a column with intervals each has the room of one, so that the numbers stand below another."""
    mean, _, half = cell.partition(' ± ')
    mean = f'<b>{text(mean)}</b>' if bold else text(mean)
    return mean + (f'<span class="half">{f" ± {text(half)}" if half else ""}</span>' if spread else '')


def sort_value(cell: str) -> str:
    """Return the first number in a cell, '' if there is none; the baseline differs from itself by 0."""
    found = re.search(r'([+-]?[\d,]*\.?\d+)(?: ([kMGT])\b)?', cell)
    if found:
        return f'{float(found[1].replace(",", "")) * UNITS.get(found[2], 1):.12g}'
    return '0' if cell == 'baseline' else ''


def more_html(section: Section, line: Line) -> str:
    """Return what is below a line: its other numbers on a phone, its remark, and what unfolds."""
    others = [f'{column} {line.cells[column]}' for column in section.columns[NARROW:] if line.cells[column] != '-']
    rest = f'<p class="rest">{text(", ".join(others))}</p>' if others else ''
    remark = f'<span class="remark">{text(line.remark)}</span>' if line.remark else ''
    every = Detail('Remarks', ('remark', ), [(said, ) for said in line.remarks])
    details = [*([every] if line.remark != '; '.join(line.remarks) else []), *line.details]
    inside = ''.join(map(detail_html, details)) + pictures_html(line.runs)
    if inside:
        return (f'{rest}<details><summary><span class="word">details</span> {remark}</summary>'
                f'<div class="inside">{inside}</div></details>')
    return rest + (f'<p>{remark}</p>' if remark else '')


def detail_html(detail: Detail) -> str:
    """Return one table of a line's details."""
    head = ''.join(f'<th scope="col">{text(title)}</th>' for title in detail.columns)
    rows = ''.join(f'<tr>{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>\n' for cells in detail.cells)
    return (f'<div class="detail" tabindex="0"><table><caption>{text(detail.title)}</caption>\n'
            f'<thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n')


def pictures_html(runs: Iterable[Run]) -> str:
    """Return the pictures of runs, each with the name of its run; '' if there are none."""
    figures = [figure(png, f'{run.result["run"]}, seed {run.result["seed"]}: ground truth | prediction')
               for run in runs for png in run.pictures.values()]
    return f'<div class="pictures">{"".join(figures)}</div>\n' if figures else ''


def plots_html(plots: list[bytes]) -> str:
    """Return the plots below a heading of their own; '' if there are none."""
    figures = ''.join(f'<figure>{image(png, f"Accuracy against cost, plot {i} of {len(plots)}")}</figure>\n'
                      for i, png in enumerate(plots, 1))
    return f'<h2>Accuracy against cost</h2>\n<div class="plots">{figures}</div>\n' if figures else ''


def figure(png: bytes, caption: str) -> str:
    """Return a picture with its caption."""
    return f'<figure>{image(png, caption)}<figcaption>{text(caption)}</figcaption></figure>\n'


def image(png: bytes, alternative: str) -> str:
    """Return a picture whose PNG is in the page itself."""
    return f'<img alt="{text(alternative)}" src="data:image/png;base64,{b64encode(png).decode()}">'


def legend_html() -> str:
    """Return how to read the tables."""
    return f'<h2>How to read this</h2>\n<ul class="notes">{"".join(f"<li>{text(one)}</li>" for one in LEGEND)}</ul>\n'
