"""Intervals are Student's t, as scipy computes them."""
import pytest
from scipy import stats

from mmincubation.leaderboard.details import short
from mmincubation.leaderboard.stats import Difference, difference, mean_of, reach

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


def test_seeds_that_only_one_has_are_not_dropped():
    """A difference of some pairs could contradict that of the means."""
    first, second = seeds([90.0, 91.0, 80.0]), seeds([91.0, 92.1]) | seeds([70.0, 70.0], 7)
    apart = difference(first, second)
    assert apart.how == 'unpaired, 3 and 4 seeds' and apart.mean == pytest.approx(261 / 3 - 323.1 / 4)


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


@pytest.mark.parametrize(('first', 'second'), [
    (seeds([1.0, 1.0]), seeds([0.0, 0.0], 5)), (seeds([43.2, 42.9]), seeds([43.1, 42.8]))])
def test_an_interval_that_only_rounding_makes_is_none(first, second):
    apart = difference(first, second)
    assert apart.half is None and not apart.supported and apart.how == 'seeds as good as equal: no interval'
    assert mean_of([100.0, 100.0]).half is None


@pytest.mark.parametrize(('target', 'cost'), [(50, 10), (55, 15), (60, 20), (58, 18), (70, None)])
def test_cost_is_interpolated_where_a_curve_first_reaches_a_value(target, cost):
    assert reach([(10, 50.0), (20, 60.0), (30, 40.0), (40, 65.0)], target) == cost
    assert reach([], target) is None


@pytest.mark.parametrize('mean, half, text', [
    (.496, .494, '+0.50 ± 0.49'), (-.72, .68, '-0.72 ± 0.68'), (-.02, .2, '+0.0 ± 0.2'), (-.5, None, '-0.5'),
    (1.04, .9, '+1.0 ± 0.9')])
def test_a_difference_shows_the_digits_that_decide(mean, half, text):
    assert str(Difference(mean, half, '')) == text


def test_a_large_count_is_rounded_before_its_unit_is_chosen():
    assert [short(value) for value in (999_700_000, 999_400_000, 999.9, 12)] == ['1 G', '999 M', '1 k', '12']
