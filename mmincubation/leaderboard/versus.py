"""Compare each row with the baseline of its group, and find what a fair comparison lacks."""
from __future__ import annotations

from difflib import get_close_matches
from itertools import groupby
from statistics import fmean

from mmincubation.result import METRICS, PROBES

from .rows import Row, final_points, settings_apart
from .stats import Difference, difference, reach

DEFAULT_BASELINE = 'e2e'
# What an incubation is compared with before a gain is its own: the name in remarks, and the methods that do.
CONTROLS = {'E2E': ('e2e', ), 'growth': ('grow_only', 'stack_only'), 'meta-model': ('meta_only', )}
OF_THE_METHOD = ('model.type', 'model.modules', 'model.arch.depth', 'model.drop_path_rate', 'train_cfg')


class UnknownBaseline(ValueError):
    """No row has the method that was asked for."""


def choose_baselines(rows: list[Row], name: str | None) -> dict[int, Row]:
    """Return the row that each row is compared with, by the row's `id`; rows without one are left out.

    Within a group it is the method `name`, by default 'e2e', else the first of the table. Of several recipes of it a
    row takes its own recipe, else the best, so that a difference is never flattered.

    Raises:
        UnknownBaseline: no row has the method `name`.
    """
    methods = sorted({row.method for row in rows})
    if name is not None and name not in methods:
        near = get_close_matches(name, methods, 1)
        raise UnknownBaseline(f'--baseline {name}: no run has this method; '
                              + (f'nearest: {near[0]}' if near else f'there are {", ".join(methods)}'))
    chosen = {}
    for _, same in groupby(rows, key=lambda row: row.group):
        group = list(same)
        wanted = name or (DEFAULT_BASELINE if any(row.method == DEFAULT_BASELINE for row in group) else group[0].method)
        found = [row for row in group if row.method == wanted]  # best first
        for row in group if found else ():
            chosen[id(row)] = next((base for base in found if base.runs[0].recipe == row.runs[0].recipe), found[0])
    return chosen


def differences(row: Row, base: Row) -> dict[str, Difference]:
    """Return the difference of two rows in points, for each metric that both have, by title."""
    found = {title: difference(row.by_seed(key, factor), base.by_seed(key, factor))
             for title, key, factor in METRICS[row.task]}
    return {title: apart for title, apart in found.items() if apart}


def share_of_cost(row: Row, base: Row) -> float | None:
    """Return the cost at which `row` reaches the mean of `base`, as a share of what `base` cost.

    The cost is block-forwards, or images where these were not counted. None if a run does not reach it, and for probes,
    which all cost the same.
    """
    if row.task in PROBES:
        return None
    target = base.main()
    for cost, total in (('block_forwards', 'block_forwards'), ('images', 'images_seen')):
        whole = base.total(total)
        if target and whole and row.total(total) is not None:
            reached = [reach(final_points(run, cost), target.mean) for run in row.runs]
            return None if None in reached else fmean(reached) / whole
    return None


def is_incubation(row: Row) -> bool:
    """Return whether a row is one of incubation, by its phases or by its name."""
    trained = any(phase['name'].startswith('module') and phase['images'] for run in row.runs
                  for phase in run.result['phases'])
    return trained or row.method.startswith('incub')


def missing_controls(row: Row, rows: list[Row]) -> str | None:
    """Return which controls an incubation lacks among the rows of its group: 'no growth control'; None for none."""
    there = {other.method for other in rows if other.group == row.group}
    # A meta model has another depth, so its weights do not fit the backbones of dense tasks.
    wanted = [name for name in CONTROLS if name != 'meta-model' or row.task == 'classification']
    missing = [name for name in wanted if not there & {*CONTROLS[name]}]
    return f'no {" or ".join(missing)} control' if missing and is_incubation(row) else None


def recipe_apart(row: Row, base: Row) -> str | None:
    """Return the settings, beside the method's own, in which a row differs from its baseline; None for none.

    A method of classification is a way of training, so its loop and the depth of its model are its own.
    """
    recipes = [other.runs[0].result.get('recipe') for other in (row, base)]
    if row is base or not all(recipes):
        return None
    if row.task == 'classification':
        recipes = [{key: value for key, value in recipe.items() if not key.startswith(OF_THE_METHOD)}
                   for recipe in recipes]
    own, other = settings_apart(recipes)
    texts = [f'{name} {own[name]} | {other[name]}' for name in list(own)[:2]]
    texts += [f'{len(own) - 2} more'] if len(own) > 2 else []
    return f'unlike {base.method}: {", ".join(texts)}' if texts else None


