"""Make the content of the leaderboard, before it is formatted: one section for each task."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmincubation.result import METRICS

from .collect import TASKS, Run
from .details import Detail, details_of, number, short, written_by
from .remarks import remarks_of
from .rows import Row, merge_seeds
from .stats import Difference
from .versus import choose_baselines, differences, recipe_apart, share_of_cost

LEGEND = ('± is half the width of the 95 % interval of the mean over seeds (Student\'s t); one seed has none, nor have '
          'seeds as good as equal.',
          'Δ is the difference from the baseline (e2e, else the first by name; of its recipes with several seeds the '
          'best) in points, by pairs if both have the same seeds. It is bold where its interval leaves out zero, which '
          'one comparison in 20 does by chance.',
          'To baseline: the cost at which a method first reaches the baseline\'s mean, as a share of the cost at which '
          'the baseline first reaches its own end, interpolated on the curves; in block-forwards, or in images where '
          'these were not counted. An assembled network counts if modules were trained for it.',
          'Cost: blocks are block-forwards, transformer blocks times images (M: million, G: 1000 M); s are '
          'device-seconds.')

REMARK_WIDTH = 100


@dataclass(frozen=True)
class Line:
    """Hold one row of a table as text, its remarks, what unfolds below it, and its numbers.

    `kind` is 'measured' for our runs, 'quoted' for the paper's numbers, 'reported' for other people's. `bold` are the
    titles of columns whose number the interval supports. `record` is what csv and json write.
    """

    kind: str
    cells: dict[str, str]
    bold: frozenset[str]
    remarks: list[str]
    details: list[Detail]
    record: dict[str, Any]
    runs: list[Run]

    @property
    def remark(self) -> str:
        """The first remarks, as many as one line has room for, and how many more there are."""
        fits = [len('; '.join(self.remarks[:i])) <= REMARK_WIDTH for i in range(1, len(self.remarks) + 1)]
        kept = max(sum(fits), 1)
        more = len(self.remarks) - kept
        said = '; '.join(self.remarks[:kept])
        return (said if len(said) <= REMARK_WIDTH else f'{said[:REMARK_WIDTH - 3]}...') + (
            f'; {more} more' if more > 0 else '')


@dataclass(frozen=True)
class Section:
    """Hold the table of one task, and what is said once for all its rows."""

    task: str
    columns: list[str]
    lines: list[Line]
    notes: list[str]

    @property
    def title(self) -> str:
        """The heading of the section."""
        return 'k-NN' if self.task == 'knn' else self.task.capitalize()


def make_sections(runs: list[Run], baseline: str | None = None) -> list[Section]:
    """Return one section for each task that has runs.

    Raises:
        UnknownBaseline: no run has the method `baseline`.
    """
    rows = merge_seeds(runs)
    chosen, wrote = choose_baselines(rows, baseline), written_by(runs)
    sections = []
    for task in TASKS:
        own = [row for row in rows if row.task == task]
        if own:
            lines = [make_line(row, rows, chosen.get(id(row)), wrote) for row in own]
            sections.append(Section(task, columns_of(task), lines, notes_of(own)))
    return sections


def columns_of(task: str) -> list[str]:
    """Return the titles of the columns of one task."""
    main, *others = [title for title, _, _ in METRICS[task]]
    return ['model', 'data', 'method', main, f'Δ {main}', *others, 'n', 'images', 'cost', 'to baseline']


def make_line(row: Row, rows: list[Row], base: Row | None, wrote: dict[str, Run]) -> Line:
    """Return one row as text and numbers, compared with its baseline."""
    main = METRICS[row.task][0][0]
    apart = differences(row, base) if base and base is not row else {}
    unlike = recipe_apart(row, base) if base else {}
    share = share_of_cost(row, base) if apart else None
    cells = {'model': row.model, 'data': row.data, 'method': row.label, **metric_cells(row),
             f'Δ {main}': 'baseline' if base is row else str(apart.get(main, '-')), 'n': str(row.n),
             'images': number(row.total('images_seen')), 'cost': cost(row), 'to baseline': share_text(share)}
    bold = {f'Δ {main}'} if main in apart and apart[main].supported else set()
    remarks = remarks_of(row, rows, base, apart, unlike, wrote)
    details = details_of(row, base, apart, unlike, wrote)
    return Line('measured', cells, frozenset(bold), remarks, details, record_of(row, base, apart, share), row.runs)


def metric_cells(row: Row) -> dict[str, str]:
    """Return the metrics of a row as text, by title."""
    return {title: str(row.mean(key, factor) or '-') for title, key, factor in METRICS[row.task]}


def cost(row: Row) -> str:
    """Return what a run of the row costs: block-forwards, or time on a machine where they were not counted."""
    if (blocks := row.total('block_forwards')) is not None:
        return f'{short(blocks)} blocks'
    if row.total('device_seconds') is None:
        return '-'
    return 'several machines' if (seconds := row.seconds()) is None else f'{number(seconds)} s'


def share_text(share: float | None) -> str:
    """Return a share of the baseline's cost as text."""
    return '-' if share is None else f'{share:.2f}x'


def notes_of(rows: list[Row]) -> list[str]:
    """Return notes of configs and lines of loaders, each once, with the rows that have it if not all do."""
    said: dict[str, list[Row]] = {}
    for row in rows:
        for run in row.runs:
            texts = (run.result['experiment'].get('note'), (run.result['weights'] or {}).get('coverage'))
            for text in filter(None, texts):
                its = said.setdefault(text, [])
                its += [] if any(other is row for other in its) else [row]
    alone = len({row.group for row in rows}) == 1
    names = {id(row): row.label if alone else f'{row.model}, {row.data}, {row.label}' for row in rows}
    return [text if len(its) == len(rows) else f'{"; ".join(names[id(row)] for row in its)}: {text}'
            for text, its in said.items()]


def record_of(row: Row, base: Row | None, apart: dict[str, Difference], share: float | None) -> dict[str, Any]:
    """Return the numbers of a row as plain data."""
    metrics = {}
    for title, key, factor in METRICS[row.task]:
        if mean := row.mean(key, factor):
            own = apart.get(title)
            metrics[title] = dict(
                mean=mean.mean, half_interval=mean.half, by_seed=row.by_seed(key, factor),
                difference=own and own.mean, difference_half_interval=own and own.half, interval=own and own.how)
    return dict(
        kind='measured', task=row.task, model=row.model, data=row.data, method=row.method, recipe=row.runs[0].recipe,
        unlike=row.unlike, baseline=base.label if base and base is not row else None, metrics=metrics, n=row.n,
        images=row.total('images_seen'), block_forwards=row.total('block_forwards'),
        device_seconds=row.seconds(), machines=row.machines(), cost_to_baseline=share)
