"""What unfolds below a row: phases, classes, errors, weights and the origin of each run."""
from __future__ import annotations

from dataclasses import dataclass

from mmincubation.result import METRICS, Phase

from .collect import TASKS, Run
from .rows import Row, unmeasured
from .stats import Difference, mean_of

SIZES = {'small': '_s', 'medium': '_m', 'large': '_l'}


@dataclass(frozen=True)
class Detail:
    """Hold one table of a row's details: titles of its columns, and its cells as text."""

    title: str
    columns: tuple[str, ...]
    cells: list[tuple[str, ...]]


def details_of(row: Row, base: Row | None, apart: dict[str, Difference], unlike: dict[str, tuple[str, str]],
               wrote: dict[str, Run]) -> list[Detail]:
    """Return what a row was made of, and how it differs from its baseline.

    `apart` are its differences from the row `base`, `unlike` the settings in which it differs; `wrote` has the run that
    wrote a file of this sha256.
    """
    against = base.label if base else ''
    settings = Detail(f'Settings unlike {against}', ('setting', 'here', 'there'),
                      [(name, *pair) for name, pair in unlike.items()])
    found = [_differences(apart, against), settings, _phases(row), *_tables(row), _sizes(row), _weights(row, wrote),
             _runs(row)]
    return [detail for detail in found if detail.cells]


def _differences(apart: dict[str, Difference], against: str) -> Detail:
    return Detail(f'Differences from {against}', ('metric', 'points', 'interval'),
                  [(title, str(each), each.how) for title, each in apart.items()])


def _phases(row: Row) -> Detail:
    runs = [run for run in row.runs if len(run.result['phases']) > 1]
    return Detail('Phases', ('seed', 'phase', 'epochs', 'images', 'seconds', 'last validation'),
                  [(str(run.result['seed']), *phase_cells(phase)) for run in runs for phase in run.result['phases']])


def phase_cells(phase: Phase) -> tuple[str, ...]:
    """Return name, length, cost and metrics of one phase as text."""
    values = [(title, phase['metrics'][key], factor) for task in TASKS for title, key, factor in METRICS[task]
              if key in phase['metrics']]
    texts = [f'{title} {"not measured" if unmeasured(value, factor) else f"{factor * value:.1f}"}'
             for title, value, factor in values]
    return (phase['name'], f'{phase["epochs"]:g}', f'{phase["images"]:,}', number(phase['seconds']), ', '.join(texts))


def _tables(row: Row) -> list[Detail]:
    """Return the tables that metrics made, such as the AP of each class, as means over the runs."""
    tables = [run.result.get('details', {}) for run in row.runs]
    found = []
    for title in dict.fromkeys(title for table in tables for title in table):
        names = dict.fromkeys(name for table in tables for name in table.get(title, {}))
        values = {name: [table[title][name] for table in tables if table.get(title, {}).get(name) is not None]
                  for name in names}
        found.append(Detail(title, ('name', 'percent'), [
            (name, str(mean_of(own, not row.repeated) or '-')) for name, own in values.items()]))
    return found


def _sizes(row: Row) -> Detail:
    """Return the AP of small, medium and large objects."""
    cells = []
    for title, key, factor in METRICS['detection'] if row.task == 'detection' else ():
        means = [row.mean(key + end, factor) for end in SIZES.values()]
        cells += [(title, *(str(mean or '-') for mean in means))] if any(means) else []
    return Detail('AP by size of the objects', ('', *SIZES), cells)


def _weights(row: Row, wrote: dict[str, Run]) -> Detail:
    cells = [(str(run.result['seed']), origin(own['sha256'], wrote), own['coverage'])
             for run in row.runs if (own := run.result['weights'])]
    return Detail('Weights', ('seed', 'file', 'loaded'), cells)


def origin(sha256: str, wrote: dict[str, Run]) -> str:
    """Return the first 8 digits of a weight file's hash, and the run that wrote it if known."""
    return f'{sha256[:8]} ({wrote[sha256].result["run"]})' if sha256 in wrote else sha256[:8]


def written_by(runs: list[Run]) -> dict[str, Run]:
    """Return the run that wrote each weight file, by the sha256 of the file."""
    return {output['sha256']: run for run in runs for output in run.result['outputs']}


def _runs(row: Row) -> Detail:
    columns = ('run', 'seed', 'config sha256', 'commit', 'machine', 'seconds', 'peak MiB', 'torch', 'finished')
    return Detail('Runs', columns, [(
        result['run'], str(result['seed']), result['config_sha256'][:8], (result['git_commit'] or '-')[:8],
        run.machine, number(result['device_seconds']),
        f'{result["peak_memory_mib"]:.0f}', result['versions'].get('torch', '-'), result['finished_at'])
        for run, result in ((run, run.result) for run in row.runs)])


def number(value: float | None) -> str:
    """Return a count with thousands separated, one decimal below 100, '-' if unknown."""
    if value is None:
        return '-'
    return f'{value:,.1f}' if abs(value) < 100 and value % 1 else f'{value:,.0f}'


def short(value: float) -> str:
    """Return a large count with three digits: '1.34 M', '9.22 G'."""
    value = float(f'{value:.3g}')  # 999,900 is 1 M
    for unit, sign in ((1e12, 'T'), (1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
        if value >= unit:
            return f'{value / unit:.3g} {sign}'
    return f'{value:.0f}'
