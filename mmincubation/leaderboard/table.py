"""Make the content of the leaderboard, before it is formatted: one section for each task."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmincubation.result import METRICS

from .collect import TASKS, Run
from .details import Detail, details_of, number, short, written_by
from .rows import Row, merge_seeds, unmeasured
from .stats import Difference
from .versus import choose_baselines, differences, missing_controls, recipe_apart, share_of_cost

LEGEND = ('± is half the width of the 95 % interval of the mean over seeds (Student\'s t); one seed has none.',
          'Δ is the difference from the baseline in points, by pairs of equal seeds where there are two or more; it is '
          'bold where its interval leaves out zero.',
          '"to baseline" is the cost at which a method first reaches the baseline\'s mean, as a share of what the '
          'baseline cost, interpolated on the curves.',
          'Cost: "blocks" are block-forwards, transformer blocks times images (M: million, G: 1000 M); "s" are '
          'device-seconds.')

REMARK_WIDTH = 100


@dataclass(frozen=True)
class Line:
    """Hold one row of a table as text, its remark, what unfolds below it, and its numbers.

    `kind` is 'measured' for our runs, 'quoted' for the paper's numbers, 'reported' for other people's. `bold` are the
    titles of columns whose number the interval supports. `record` is what csv and json write.
    """

    kind: str
    cells: dict[str, str]
    bold: frozenset[str]
    remark: str
    details: list[Detail]
    record: dict[str, Any]
    runs: list[Run]


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


def make_line(row: Row, rows: list[Row], base: Row | None, wrote: dict[str, str]) -> Line:
    """Return one row as text and numbers, compared with its baseline."""
    main = METRICS[row.task][0][0]
    apart = differences(row, base) if base and base is not row else {}
    share = share_of_cost(row, base) if apart else None
    cells = {'model': row.model, 'data': row.data, 'method': row.label, **metric_cells(row),
             f'Δ {main}': 'baseline' if base is row else str(apart.get(main, '-')), 'n': str(len(row.runs)),
             'images': number(row.total('images_seen')), 'cost': cost(row), 'to baseline': share_text(share)}
    bold = {f'Δ {main}'} if main in apart and apart[main].supported else set()
    said = remarks(row, rows, base, apart)
    details = details_of(row, said, apart, base.label if base else '', wrote)
    record = record_of(row, base, apart, share)
    return Line('measured', cells, frozenset(bold), one_line(said), details, record, row.runs)


def one_line(texts: list[str]) -> str:
    """Return the first texts that fit on one line, and how many more there are."""
    kept = [text for i, text in enumerate(texts) if not i or len('; '.join(texts[:i + 1])) <= REMARK_WIDTH]
    return '; '.join(kept) + (f'; {len(texts) - len(kept)} more' if len(kept) < len(texts) else '')


def metric_cells(row: Row) -> dict[str, str]:
    """Return the metrics of a row as text, by title."""
    return {title: str(row.mean(key, factor) or '-') for title, key, factor in METRICS[row.task]}


def cost(row: Row) -> str:
    """Return what a run of the row costs: block-forwards, or time on a machine where they were not counted."""
    if (blocks := row.total('block_forwards')) is not None:
        return f'{short(blocks)} blocks'
    if len(row.machines()) > 1:
        return 'several machines'
    return f'{number(row.total("device_seconds"))} s'


def share_text(share: float | None) -> str:
    """Return a share of the baseline's cost as text."""
    return '-' if share is None else f'{share:.2f}x'


def remarks(row: Row, rows: list[Row], base: Row | None, apart: dict[str, Difference]) -> list[str]:
    """Return what a reader must know of a row, the gravest first, each in a few words."""
    found = not_measured(row)
    if row.repeated:
        found.insert(0, f'seed {row.repeated[0]} is there {_times(row)} times: delete all but one result, or give one '
                        'another method')
    if not all(run.result.get('recipe') for run in row.runs):
        found.append('written by an older version, without its recipe: seeds are not merged')
    found += [missing_controls(row, rows), base and recipe_apart(row, base)]
    found += [each.how for each in apart.values() if each.half is None][:1]
    if base and base is not row and set(row.machines()) != set(base.machines()) and not row.total('block_forwards'):
        found.append(f'cost on {", ".join(row.machines())}, the baseline\'s on {", ".join(base.machines())}')
    return [text for text in found if text]


def _times(row: Row) -> int:
    return sum(run.result['seed'] == row.repeated[0] for run in row.runs)


def not_measured(row: Row) -> list[str]:
    """Return in words each metric that a run did not measure; of those that are not there, the main one alone."""
    main, found = METRICS[row.task][0][0], {}
    for run in row.runs:
        metrics, notes = run.result['metrics'], run.result.get('notes', {})
        for title, key, _ in METRICS[row.task]:
            if (key in metrics or title == main) and (why := notes.get(key) or unmeasured(metrics.get(key))):
                found.setdefault(f'{title} not measured: {why}', []).append(run.result['seed'])
    return [text if len(seeds) == len(row.runs) else f'seed {", ".join(map(str, seeds))}: {text}'
            for text, seeds in found.items()]


def notes_of(rows: list[Row]) -> list[str]:
    """Return notes of configs and lines of loaders, each once, with the rows that have it if not all do."""
    said: dict[str, list[str]] = {}
    for row in rows:
        for run in row.runs:
            texts = (run.result['experiment'].get('note'), (run.result['weights'] or {}).get('coverage'))
            for text in filter(None, texts):
                labels = said.setdefault(text, [])
                if row.label not in labels:
                    labels.append(row.label)
    every = {row.label for row in rows}
    return [text if {*labels} == every else f'{", ".join(labels)}: {text}' for text, labels in said.items()]


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
        unlike=row.unlike, baseline=base.label if base and base is not row else None, metrics=metrics, n=len(row.runs),
        images=row.total('images_seen'), block_forwards=row.total('block_forwards'),
        device_seconds=row.total('device_seconds'), machines=row.machines(), cost_to_baseline=share)
