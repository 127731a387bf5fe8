"""Write the leaderboard as data: JSON, and CSV with one line for each row and metric."""
from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from mmincubation.errors import clean

from .reported import PERCENT
from .table import LEGEND, Line, Section

DIGITS = 6  # behind the point: enough for any use, and too few for the differences between machines
METRIC_FIELDS = ('mean', 'half_interval', 'difference', 'difference_half_interval', 'interval')
COLUMNS = (
    'kind', 'task', 'model', 'data', 'method', 'recipe', 'unlike', 'metric', 'mean', 'half_interval', 'n', 'seeds',
    'values', 'baseline', 'difference', 'difference_half_interval', 'interval', 'images', 'block_forwards',
    'device_seconds', 'machines', 'cost_to_baseline', 'cost', 'source', 'remark')
FORMULA = ('=', '+', '-', '@')  # a spreadsheet executes a cell that begins so; `clean` has removed the tab


def to_json(sections: list[Section]) -> str:
    """Return all rows with their numbers, remarks and details; equal results give equal bytes."""
    content = dict(legend=LEGEND, sections=[dict(
        task=section.task, notes=section.notes, rows=[_row(line) for line in section.lines]) for section in sections])
    return json.dumps(_plain(content), indent=2, sort_keys=True, allow_nan=False) + '\n'


def _row(line: Line) -> dict[str, Any]:
    return dict(line.record, remarks=line.remarks, details=[asdict(detail) for detail in line.details])


def _plain(value: Any) -> Any:
    """Return a value as JSON has it: text without control characters, numbers rounded, keys as text."""
    if isinstance(value, dict):
        return {clean(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return round(value, DIGITS)
    return clean(value) if isinstance(value, str) else value


def to_csv(sections: list[Section]) -> str:
    """Return one line for each row and metric; a row that measured nothing has one line without numbers.

    Text that a spreadsheet would execute gets an apostrophe before it. Numbers stay numbers.
    """
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator='\n')
    writer.writeheader()
    for section in sections:
        for line in section.lines:
            metrics = line.record['metrics'] or {PERCENT[section.task][0]: {}}
            for title, metric in metrics.items():
                cells = _csv_row(line, title, metric)
                writer.writerow({column: cell(cells.get(column)) for column in COLUMNS})
    return out.getvalue()


def _csv_row(line: Line, title: str, metric: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of one row and metric by column; lists are joined with '; '."""
    record, by_seed = line.record, metric.get('by_seed') or {}
    pairs = [(seed, value) for seed, values in by_seed.items() for value in values]
    lists = dict(
        unlike=[f'{name} {value}' for name, value in (record.get('unlike') or {}).items()],
        machines=record.get('machines') or [], seeds=[str(seed) for seed, _ in pairs],
        values=[str(round(value, DIGITS)) for _, value in pairs])
    joined = {name: '; '.join(texts) for name, texts in lists.items()}
    return {**record, **{name: metric.get(name) for name in METRIC_FIELDS}, **joined, 'metric': title,
            'n': len(pairs) or record.get('n'), 'remark': '; '.join(line.remarks)}


def cell(value: Any) -> Any:
    """Return a number as it is, rounded, and text on one line that no spreadsheet executes."""
    if not isinstance(value, str):
        return round(value, DIGITS) if isinstance(value, float) else value
    text = clean(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) else text
