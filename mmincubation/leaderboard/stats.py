"""Merge runs that differ by their seed into rows, and compare methods."""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, stdev

from .collect import Run

DIFFERENCES = (('incub', 'e2e'), ('incub_random', 'e2e'), ('incub', 'scratch'), ('e2e', 'scratch'))


@dataclass(frozen=True)
class Row:
    """Hold runs that differ by their seed only."""

    runs: list[Run]

    @property
    def method(self) -> str:
        """The method of all runs."""
        return self.runs[0].result['experiment']['method']

    @property
    def task(self) -> str:
        """The task of all runs."""
        return self.runs[0].task

    @property
    def group(self) -> tuple:
        """What the row shares with the rows that it may be compared with."""
        return self.runs[0].group

    def values(self, key: str, factor: float = 1) -> list[float]:
        """Return a metric of every run in percent, without the runs that did not measure it."""
        found = (run.result['metrics'].get(key) for run in self.runs)
        return [factor * value for value in found if unmeasured(value) is None]

    def total(self, key: str) -> float | None:
        """Return the mean over the seeds of a number of the result; None if it is unknown for a run."""
        values = [run.result[key] for run in self.runs]
        return None if None in values else fmean(values)


def unmeasured(value: float | None) -> str | None:
    """Return in words why a metric of a result is no measure; None if it is one."""
    if value is None:
        return 'its result has no such number'
    if math.isnan(value):
        return 'nan, no number'
    # COCO says -1 where there is nothing to measure; no metric here can be negative.
    return f'{value:g}, the validation data have no object to find' if value < 0 else None


def merge_seeds(runs: Iterable[Run]) -> list[Row]:
    """Return one row for each task, model, data and method; best first within a group."""
    rows = [Row(list(same)) for _, same in groupby(sorted(runs, key=lambda run: run.key), key=lambda run: run.key)]
    return sorted(rows, key=lambda row: (row.group, -main_value(row)))


def main_value(row: Row) -> float:
    """Return the mean of the metric that its task is judged by, -1 if it was not measured."""
    _, key, factor = METRICS[row.task][0]
    values = row.values(key, factor)
    return fmean(values) if values else -1.


def mean_std(values: list[float]) -> str:
    """Return mean and sample standard deviation: '71.3', '71.3 ± 1.2', or '-' for no value."""
    if not values:
        return '-'
    return f'{fmean(values):.1f}' + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def seeds(runs: list) -> str:
    """Return the number of seeds in words: 'one seed', '3 seeds'."""
    return 'one seed' if len(runs) == 1 else f'{len(runs)} seeds'


def differences(rows: Iterable[Row]) -> list[str]:
    """Return the differences between methods, within each group of rows that may be compared.

    A line is for example 'vit_demo: incub - e2e: top-1 +5.2 points (one seed each)'.
    """
    lines = []
    for group, same in groupby(rows, key=lambda row: row.group):
        by_method = {row.method: row for row in same}
        for first, second in DIFFERENCES:
            if first in by_method and second in by_method:
                text = points(by_method[first], by_method[second])
                lines += [f'{group[1]}: {first} - {second}: {text}'] if text else []
    return lines


def points(first: Row, second: Row) -> str:
    """Return the difference of the means of two rows in points, for each metric that both have; '' for none."""
    texts = []
    for title, key, factor in METRICS[first.task]:
        a, b = first.values(key, factor), second.values(key, factor)
        if a and b:
            texts.append(f'{title} {fmean(a) - fmean(b):+.1f}')
    behind = [seeds(first.runs), seeds(second.runs)]
    behind = f'{behind[0]} each' if behind[0] == behind[1] else ' against '.join(behind)
    return f'{", ".join(texts)} points ({behind})' if texts else ''
