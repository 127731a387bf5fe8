"""Make the content of the leaderboard, before it is formatted: one section for each task."""
from __future__ import annotations

from dataclasses import dataclass

from mmincubation.result import Phase

from .collect import TASKS, Run
from .stats import METRICS, Row, differences, mean_std, merge_seeds, seeds


@dataclass(frozen=True)
class Line:
    """Hold one row of a table, and the remarks below it."""

    cells: list[str]
    details: list[str]
    runs: list[Run]


@dataclass(frozen=True)
class Section:
    """Hold the table of one task, and the differences between its methods."""

    title: str
    columns: list[str]
    lines: list[Line]
    differences: list[str]


def make_sections(runs: list[Run]) -> list[Section]:
    """Return one section for each task that has runs."""
    rows, wrote = merge_seeds(runs), written_by(runs)
    sections = []
    for task in TASKS:
        own = [row for row in rows if row.task == task]
        if own:
            lines = [Line(make_cells(row, wrote), make_details(row), row.runs) for row in own]
            sections.append(Section(task.capitalize(), columns(task), lines, differences(own)))
    return sections


def columns(task: str) -> list[str]:
    """Return the titles of the columns of one task."""
    last = ['block-forwards (M)', 'device-seconds'] if task == 'classification' else ['device-seconds', 'weights']
    return ['run', 'method', *(title for title, _, _ in METRICS[task]), 'seeds', 'images seen', *last]


def make_cells(row: Row, wrote: dict[str, str]) -> list[str]:
    """Return one row as text, in the order of `columns`."""
    seconds = number(row.total('device_seconds'))
    last = [seconds, weights(row, wrote)]
    if row.task == 'classification':
        last = [number(row.total('block_forwards'), 1e6), seconds]
    metrics = [mean_std(row.values(key, factor)) for _, key, factor in METRICS[row.task]]
    names = sorted({run.result['run'] for run in row.runs})
    return [', '.join(names), row.method, *metrics, seeds(row.runs), number(row.total('images_seen')), *last]


def number(value: float | None, unit: float = 1) -> str:
    """Return a count with thousands separated, one decimal below 100, '-' if unknown."""
    if value is None:
        return '-'
    return f'{value / unit:,.1f}' if unit > 1 or abs(value) < 100 and value % 1 else f'{value:,.0f}'


def written_by(runs: list[Run]) -> dict[str, str]:
    """Return the name of the run that wrote each weight file, by the sha256 of the file."""
    return {output['sha256']: run.result['run'] for run in runs for output in run.result['outputs']}


def weights(row: Row, wrote: dict[str, str]) -> str:
    """Return the first 8 digits of the weights that the runs started from, and the run that wrote them if known."""
    files = [run.result['weights']['sha256'] for run in row.runs if run.result['weights']]
    names = [f'{sha[:8]} ({wrote[sha]})' if sha in wrote else sha[:8] for sha in dict.fromkeys(files)]
    return ', '.join(names) or 'none'


def make_details(row: Row) -> list[str]:
    """Return notes, coverage of the weights, and the phases of each run; by seed if there are several."""
    details = []
    for run in row.runs:
        notes = [f'{title}: {words}' for title, key, _ in METRICS[row.task]
                 if (words := run.result.get('notes', {}).get(key))]
        said = [*notes, run.result['experiment'].get('note'),
                run.result['weights'] and run.result['weights']['coverage']]
        if len(run.result['phases']) > 1:
            said.append('; '.join(map(phase_text, run.result['phases'])))
        details += [f'seed {run.result["seed"]}: {text}' if len(row.runs) > 1 else text for text in said if text]
    # Seeds often share a remark: list it once, in the order of the first.
    return list(dict.fromkeys(details))


def phase_text(phase: Phase) -> str:
    """Return name, cost and metrics of one phase: 'meta: 6 epochs, 38,400 images, 77.0 s, top-1 52.1'."""
    texts = []
    if phase['images']:
        texts = [f'{phase["epochs"]:g} epochs', f'{phase["images"]:,} images', f'{number(phase["seconds"])} s']
    for title, key, factor in (metric for task in TASKS for metric in METRICS[task]):
        if phase['metrics'].get(key) is not None:
            texts.append(f'{title} {factor * phase["metrics"][key]:.1f}')
    return f'{phase["name"]}: {", ".join(texts)}'
