"""Make the leaderboard from folders of runs."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mmincubation.atomic import write_atomic

from .collect import Run, collect
from .data_forms import to_csv, to_json
from .latex import to_latex
from .page import to_html
from .plot import plot_costs
from .render import to_markdown, to_text
from .reported import add_reported, collect_reported, paper_rows
from .table import Section, make_sections

FORMATS = ('html', 'md', 'csv', 'json', 'latex')


@dataclass(frozen=True)
class Board:
    """Hold the sections of the leaderboard, and what was said while they were made.

    `problems` has a line for each file that cannot be used, `copies` for each that is the copy of another.
    """

    runs: list[Run]
    sections: list[Section]
    problems: list[str]
    copies: list[str]


def make_board(sources: Iterable[Path], baseline: str | None = None, with_paper: bool = False) -> Board:
    """Read all results below folders, other people's too, and the paper's if asked for.

    Raises:
        UnknownBaseline: no run has the method `baseline`.
    """
    sources = list(sources)
    runs, problems, copies = collect(sources)
    entries, faults = collect_reported(sources)
    sections = add_reported(make_sections(runs, baseline), [*entries, *(paper_rows() if with_paper else [])])
    return Board(runs, sections, problems + faults, copies)


def write_board(board: Board, out: Path) -> None:
    """Write `leaderboard.md`, its plots and `leaderboard.html` to the folder `out`."""
    plots = plot_costs(board.runs)
    names = [f'leaderboard-{i}.png' for i in range(len(plots))]
    for name, png in zip(names, plots, strict=True):
        write_atomic(out / name, png)
    write_atomic(out / 'leaderboard.md', to_markdown(board.sections, names).encode())
    write_atomic(out / 'leaderboard.html', to_html(board.sections, plots).encode())


def in_format(board: Board, form: str | None) -> str:
    """Return the leaderboard in one of FORMATS; without one, as text for a terminal."""
    if form == 'html':
        return to_html(board.sections, plot_costs(board.runs))
    if form == 'md':
        return to_markdown(board.sections, [])
    return {'csv': to_csv, 'json': to_json, 'latex': to_latex}.get(form, to_text)(board.sections)
