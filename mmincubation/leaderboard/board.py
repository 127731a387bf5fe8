"""Make the leaderboard from folders of runs."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmincubation.atomic import write_atomic

from .collect import collect
from .page import to_html
from .plot import plot_costs
from .render import to_markdown, to_text
from .table import make_sections


def make_leaderboard(sources: Iterable[Path], out: Path, baseline: str | None = None) -> tuple[str, list[str]]:
    """Read all results below `sources` and write `leaderboard.md`, its plots and `leaderboard.html` to `out`.

    Returns:
        The table for a terminal ('' and no file if there is no result), and one line for each broken file.

    Raises:
        UnknownBaseline: no run has the method `baseline`.
    """
    runs, problems = collect(sources)
    if not runs:
        return '', problems
    sections, plots = make_sections(runs, baseline), plot_costs(runs)
    names = [f'leaderboard-{i}.png' for i in range(len(plots))]
    for name, png in zip(names, plots, strict=True):
        write_atomic(out / name, png)
    write_atomic(out / 'leaderboard.md', to_markdown(sections, names).encode())
    write_atomic(out / 'leaderboard.html', to_html(sections, plots).encode())
    return to_text(sections), problems
