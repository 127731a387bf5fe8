"""Means, differences and their 95 % intervals, from the values of seeds."""
from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, stdev, variance

CONFIDENCE = 0.95
# Points. AP has three digits and a small set few steps, so a narrower interval shows the rounding and not the seeds.
NARROWEST = 0.05


@dataclass(frozen=True)
class Mean:
    """Hold the mean of the values of several seeds; `half` is half the width of its interval, None for one seed."""

    values: tuple[float, ...]
    mean: float
    half: float | None

    def __str__(self) -> str:
        """Return the mean with its interval: '71.3', '71.3 ± 1.2'."""
        return f'{self.mean:.1f}' + ('' if self.half is None else f' ± {self.half:.1f}')


@dataclass(frozen=True)
class Difference:
    """Hold the difference of two rows in points; `how` says in words what the interval rests on."""

    mean: float
    half: float | None
    how: str

    @property
    def supported(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.half is not None and abs(self.mean) > self.half

    def __str__(self) -> str:
        """Return the difference with its interval: '+5.2', '+5.2 ± 1.1'; with more digits if these tell them apart."""
        if self.half is None:
            return signed(self.mean, 1)
        digits = 1 if f'{abs(self.mean):.1f}' != f'{self.half:.1f}' else 2
        return f'{signed(self.mean, digits)} ± {self.half:.{digits}f}'


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, which is + for what rounds to 0."""
    return f'{round(value, digits) + 0.:+.{digits}f}'


def t_quantile(freedom: float) -> float:
    """Return the quantile of Student's t that half of the interval spans in standard errors."""
    from scipy.special import stdtrit  # not scipy.stats, which takes a second to import
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2))


def mean_of(values: Iterable[float], independent: bool = True) -> Mean | None:
    """Return mean and interval of the values of seeds; None for no value.

    There is no interval for one seed, for values as good as equal, or if they are not `independent` (a seed that ran
    twice).
    """
    values = tuple(values)
    if not values:
        return None
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0
    return Mean(values, fmean(values), half if independent and half >= NARROWEST else None)


def difference(first: dict[int, list[float]], second: dict[int, list[float]]) -> Difference | None:
    """Return `first` - `second`, each the values by seed; None if one has no value.

    If both have the same seeds, they are compared pair by pair; else the means by Welch's interval, because the
    difference of some pairs could contradict that of the means.
    """
    every = [[value for values in side.values() for value in values] for side in (first, second)]
    if not all(every):
        return None
    apart = fmean(every[0]) - fmean(every[1])
    if twice := sorted({seed for side in (first, second) for seed, values in side.items() if len(values) > 1}):
        return Difference(apart, None, f'seed {twice[0]} is there twice: no interval')
    if min(map(len, every)) < 2:
        return Difference(apart, None, 'one seed: no interval')
    if first.keys() == second.keys():
        half, how = mean_of(first[seed][0] - second[seed][0] for seed in first).half or 0, f'paired, {len(first)} seeds'
    else:
        half, how = _welch(*every), f'unpaired, {len(every[0])} and {len(every[1])} seeds'
    if half < NARROWEST:
        return Difference(apart, None, 'seeds as good as equal: no interval')
    return Difference(apart, half, how)


def _welch(first: list[float], second: list[float]) -> float:
    """Return half of Welch's interval of the difference of two means."""
    parts = [variance(values) / len(values) for values in (first, second)]
    if not (error := sum(parts)):
        return 0.
    freedom = error**2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, (first, second), strict=True))
    return t_quantile(freedom) * math.sqrt(error)


def reach(points: list[tuple[float, float]], target: float) -> float | None:
    """Return the cost at which a curve of (cost, value) first reaches a value, by linear interpolation.

    It is the cost of the first point if that is there already, None if no point is.
    """
    before = None
    for cost, value in points:
        if value >= target:
            if before is None:
                return cost
            share = (target - before[1]) / (value - before[1])
            return before[0] + share * (cost - before[0])
        before = cost, value
    return None
