"""Write the leaderboard as one HTML file that needs no other file."""
from __future__ import annotations

import html
from base64 import b64encode

from .collect import Run, clean
from .render import TITLE
from .table import Line, Section

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #777; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .7rem; text-align: right; white-space: nowrap; }
th:nth-child(-n+2), td:nth-child(-n+2), td.detail { text-align: left; }
thead th { border-bottom: 2px solid var(--line); }
tbody tr.row td { border-top: 1px solid var(--line); }
td.detail { color: var(--soft); font-size: .85rem; white-space: normal; padding-top: 0; }
ul.differences { padding-left: 1.2rem; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 4px; background: #fff; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1rem; }
.pictures figure { margin: 0; }
.pictures img { width: 100%; image-rendering: pixelated; }
figcaption { color: var(--soft); font-size: .85rem; }
"""
# The page shows text and pictures that it carries; it may run and fetch nothing.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
RUN_COLUMNS = ('run', 'seed', 'config sha256', 'commit', 'hardware', 'devices', 'peak MiB', 'torch', 'finished')


def text(value: object) -> str:
    """Return any value as HTML text."""
    return html.escape(clean(str(value)))


def to_html(sections: list[Section], runs: list[Run], plots: list[bytes]) -> str:
    """Return the page: tables, plots of accuracy against cost, pictures of dense tasks, and the origin of each run."""
    plot_figures = ''.join(figure(png, 'Top-1 at the end of each phase, against the cost up to there') for png in plots)
    body = [section_html(section, plot_figures if section.title == 'Classification' else '') for section in sections]
    return (f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
            f'<meta name="viewport" content="width=device-width">\n<title>{TITLE}</title>\n<style>{STYLE}</style>\n'
            f'<h1>{TITLE}</h1>\n{"".join(body)}{runs_html(runs)}</html>\n')


def section_html(section: Section, plots: str) -> str:
    """Return one section: table, differences, plots and pictures."""
    rows = ''.join(line_html(line, len(section.columns)) for line in section.lines)
    gaps = ''.join(f'<li>{text(difference)}</li>' for difference in section.differences)
    return (f'<h2>{text(section.title)}</h2>\n{table(section.columns, rows)}'
            f'<ul class="differences">{gaps}</ul>\n{plots}{pictures_html(section)}')


def table(columns: list[str] | tuple[str, ...], rows: str) -> str:
    """Return a table with these titles; `rows` is HTML already."""
    head = ''.join(f'<th>{text(title)}</th>' for title in columns)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>\n'


def line_html(line: Line, width: int) -> str:
    """Return one row of a table, with its details in rows below."""
    details = ''.join(f'<tr><td class="detail" colspan="{width}">{text(detail)}</td></tr>' for detail in line.details)
    return row_html(line.cells) + details


def row_html(cells: list) -> str:
    """Return one row of a table."""
    return f'<tr class="row">{"".join(f"<td>{text(cell)}</td>" for cell in cells)}</tr>\n'


def pictures_html(section: Section) -> str:
    """Return the pictures of all runs of a section, each with the name of its run; '' if there are none."""
    figures = [figure(png, f'{run.result["run"]}, seed {run.result["seed"]}: ground truth | prediction')
               for line in section.lines for run in line.runs for png in run.pictures.values()]
    return f'<div class="pictures">{"".join(figures)}</div>\n' if figures else ''


def figure(png: bytes, caption: str) -> str:
    """Return a picture with its caption; the PNG is embedded in the page."""
    data = b64encode(png).decode()
    return (f'<figure><img alt="{text(caption)}" src="data:image/png;base64,{data}">'
            f'<figcaption>{text(caption)}</figcaption></figure>\n')


def runs_html(runs: list[Run]) -> str:
    """Return a table of the origin of each result: config, code, machine."""
    rows = ''.join(row_html([
        result['run'], result['seed'], result['config_sha256'][:8], (result['git_commit'] or '-')[:8],
        result['hardware'], result['devices'], f'{result["peak_memory_mib"]:.0f}',
        result['versions'].get('torch', '-'), result['finished_at']]) for result in (run.result for run in runs))
    return f'<h2>Runs</h2>\n{table(RUN_COLUMNS, rows)}'
