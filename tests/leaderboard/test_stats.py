"""Intervals are Student's t, as scipy computes them."""
import pytest
from scipy import stats

from mmincubation.leaderboard.stats import difference, mean_of, reach

A, B = [60.0, 62.5, 67.0, 64.0], [58.0, 61.0, 65.5, 61.5]


def seeds(values, first=0):
    return {first + i: [value] for i, value in enumerate(values)}


def test_interval_of_a_mean():
    mean = mean_of(A)
    low, high = stats.t.interval(0.95, len(A) - 1, loc=mean.mean, scale=stats.sem(A))
    assert (mean.mean - mean.half, mean.mean + mean.half) == pytest.approx((low, high))
    assert str(mean_of([60.0])) == '60.0' and mean_of([]) is None
    assert mean_of(A, independent=False).half is None


def test_equal_seeds_are_paired():
    apart, test = difference(seeds(A), seeds(B)), stats.ttest_rel(A, B).confidence_interval(0.95)
    assert (apart.mean - apart.half, apart.mean + apart.half) == pytest.approx((test.low, test.high))
    assert apart.how == 'paired, 4 seeds' and apart.supported
    assert str(apart) == f'{apart.mean:+.1f} ± {apart.half:.1f}'


def test_only_the_seeds_that_both_have_are_paired():
    apart = difference(seeds(A), seeds(B[:3]) | {9: [0.0]})
    assert apart.how == 'paired, 3 seeds' and apart.mean == pytest.approx(sum(A[:3]) / 3 - sum(B[:3]) / 3)


def test_other_seeds_are_compared_by_welch():
    apart, test = difference(seeds(A), seeds(B[:3], 10)), stats.ttest_ind(A, B[:3], equal_var=False)
    interval = test.confidence_interval(0.95)
    assert (apart.mean - apart.half, apart.mean + apart.half) == pytest.approx((interval.low, interval.high))
    assert apart.how == 'unpaired, 4 and 3 seeds' and not apart.supported


@pytest.mark.parametrize(('first', 'second', 'how'), [
    (seeds(A[:1]), seeds(B[:1]), 'one seed: no interval'), (seeds(A), seeds(B[:1]), 'one seed: no interval'),
    ({0: [1.0, 2.0], 1: [2.0]}, seeds(B), 'seed 0 is there twice: no interval')])
def test_without_an_interval_nothing_is_supported(first, second, how):
    apart = difference(first, second)
    assert apart.how == how and apart.half is None and not apart.supported and '±' not in str(apart)


def test_what_was_not_measured_has_no_difference():
    assert difference({}, seeds(A)) is None and difference(seeds(A), {}) is None


def test_an_interval_of_equal_values_is_no_division_by_zero():
    assert difference(seeds([1.0, 1.0]), seeds([0.0, 0.0], 5)).half == 0


@pytest.mark.parametrize(('target', 'cost'), [(50, 10), (55, 15), (60, 20), (58, 18), (70, None)])
def test_cost_is_interpolated_where_a_curve_first_reaches_a_value(target, cost):
    assert reach([(10, 50.0), (20, 60.0), (30, 40.0), (40, 65.0)], target) == cost
    assert reach([], target) is None
