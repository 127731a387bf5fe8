"""From runs to rows: seeds merged, differences between methods."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, stdev

from .collect import Run

# What each task is judged by: title, key in `metrics`, and the factor to percent. The first one is the main one.
METRICS = {
    'classification': (('top-1', 'accuracy/top1', 1), ),
    'detection': (('box AP', 'coco/bbox_mAP', 100), ('mask AP', 'coco/segm_mAP', 100)),
    'segmentation': (('mIoU', 'mIoU', 1), ('aAcc', 'aAcc', 1)),
}
DIFFERENCES = (('incub', 'e2e'), ('incub_random', 'e2e'), ('incub', 'scratch'), ('e2e', 'scratch'))


@dataclass(frozen=True)
class Row:
    """Runs that differ by their seed only."""

    runs: list[Run]

    @property
    def method(self) -> str:
        """Method of all of its runs."""
        return self.runs[0].result['experiment']['method']

    @property
    def task(self) -> str:
        """Task of all of its runs."""
        return self.runs[0].task

    @property
    def group(self) -> tuple:
        """What the row shares with those it may be compared with."""
        return self.runs[0].group

    def values(self, key: str, factor: float = 1) -> list[float]:
        """A metric of every run in percent; runs that did not measure it are not in the list."""
        found = (run.result['metrics'].get(key) for run in self.runs)
        # COCO says -1 where there is nothing to measure.
        return [factor * value for value in found if value is not None and value >= 0]

    def total(self, key: str) -> float | None:
        """Mean over the seeds of a number of the result, None where a run does not know it."""
        values = [run.result[key] for run in self.runs]
        return None if None in values else fmean(values)


def merge_seeds(runs: Iterable[Run]) -> list[Row]:
    """One row for each task, model, data and method; best first within a group."""
    rows = [Row(list(same)) for _, same in groupby(sorted(runs, key=lambda run: run.key), key=lambda run: run.key)]
    return sorted(rows, key=lambda row: (row.group, -main_value(row)))


def main_value(row: Row) -> float:
    """Mean of the metric that its task is judged by, -1 where it was not measured."""
    _, key, factor = METRICS[row.task][0]
    values = row.values(key, factor)
    return fmean(values) if values else -1.


def mean_std(values: list[float]) -> str:
    """Mean and sample standard deviation: '71.3', '71.3 ± 1.2', or '-' for no value."""
    if not values:
        return '-'
    return f'{fmean(values):.1f}' + (f' ± {stdev(values):.1f}' if len(values) > 1 else '')


def seeds(runs: list) -> str:
    """How many seeds stand behind a number."""
    return 'one seed' if len(runs) == 1 else f'{len(runs)} seeds'


def differences(rows: Iterable[Row]) -> list[str]:
    """Lines such as 'vit_demo: incub - e2e: top-1 +5.2 points (one seed each)', within each group of rows that may be
    compared."""
    lines = []
    for group, same in groupby(rows, key=lambda row: row.group):
        by_method = {row.method: row for row in same}
        for first, second in DIFFERENCES:
            if first in by_method and second in by_method:
                text = points(by_method[first], by_method[second])
                lines += [f'{group[1]}: {first} - {second}: {text}'] if text else []
    return lines


def points(first: Row, second: Row) -> str:
    """Difference of the means of two rows of one task in points, for each metric that both have; '' for none."""
    parts = []
    for title, key, factor in METRICS[first.task]:
        a, b = first.values(key, factor), second.values(key, factor)
        if a and b:
            parts.append(f'{title} {fmean(a) - fmean(b):+.1f}')
    behind = [seeds(first.runs), seeds(second.runs)]
    behind = f'{behind[0]} each' if behind[0] == behind[1] else ' against '.join(behind)
    return f'{", ".join(parts)} points ({behind})' if parts else ''
