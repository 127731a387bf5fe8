"""Make the leaderboard from a folder of runs."""
from __future__ import annotations

from pathlib import Path

from mmincubation.atomic import write_atomic

from .collect import collect, newest_per_seed
from .page import to_html
from .plot import plot_costs
from .render import to_markdown, to_text
from .table import make_sections


def make_leaderboard(work_dirs: Path, out: Path) -> tuple[str, list[str], list[str]]:
    """Read all results below `work_dirs` and write `leaderboard.md`, its plots and `leaderboard.html` to `out`.

    Returns:
        The table for a terminal ('' and no file if there is no result), one line for each broken file, and one for
        each run that a newer one of the same method and seed replaces.
    """
    runs, problems = collect(work_dirs)
    runs, replaced = newest_per_seed(runs)
    if not runs:
        return '', problems, replaced
    sections, plots = make_sections(runs), plot_costs(runs)
    names = [f'leaderboard-{i}.png' for i in range(len(plots))]
    for name, png in zip(names, plots, strict=True):
        write_atomic(out / name, png)
    write_atomic(out / 'leaderboard.md', to_markdown(sections, names).encode())
    write_atomic(out / 'leaderboard.html', to_html(sections, runs, plots).encode())
    return to_text(sections), problems, replaced
