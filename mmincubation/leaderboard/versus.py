"""Compare each row with the baseline of its group, and find what a fair comparison lacks."""
from __future__ import annotations

from difflib import get_close_matches
from itertools import groupby
from statistics import fmean

from mmincubation.result import METRICS, PROBES

from .rows import FINAL, Row, final_points, settings_apart, trains_modules
from .stats import Difference, difference, reach

DEFAULT_BASELINE = 'e2e'
ENOUGH = 0.9  # of an incubation's cost, for a control
# What an incubation is compared with before a gain is its own: the name in remarks, and the methods that do.
CONTROLS = {'E2E': ('e2e', ), 'growth': ('grow_only', 'stack_only'), 'meta-model': ('meta_only', )}
OF_THE_METHOD = ('model.type', 'model.modules', 'train_cfg')
OF_THE_META_MODEL = ('model.arch.depth', )  # which is trained alone in a row of meta_only
DROP_PATH, LAST_DROP_PATH = 'model.drop_path_rate', 'train_cfg.phases.finetune.drop_path_rate'


class UnknownBaseline(ValueError):
    """No row has the method that was asked for."""


def choose_baselines(rows: list[Row], name: str | None) -> dict[int, Row]:
    """Return the row that each row is compared with, by the row's `id`; rows without one are left out.

    Within a group it is the method `name`, by default 'e2e', else the first by name: the best would be chosen after the
    fact. Of its recipes it is the best of those with several seeds, or of all if none has: neither a recipe that was
    not tuned nor a lucky seed.

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
        there = sorted({row.method for row in group})
        wanted = name or (DEFAULT_BASELINE if DEFAULT_BASELINE in there else there[0])
        found = [row for row in group if row.method == wanted]  # best first
        several = [row for row in found if len(row.runs) > 1]
        chosen |= {id(row): (several or found)[0] for row in group if found}
    return chosen


def differences(row: Row, base: Row) -> dict[str, Difference]:
    """Return the difference of two rows in points, for each metric that both have, by title."""
    found = {title: difference(row.by_seed(key, factor), base.by_seed(key, factor))
             for title, key, factor in METRICS[row.task]}
    return {title: apart for title, apart in found.items() if apart}


def share_of_cost(row: Row, base: Row) -> float | None:
    """Return the cost at which `row` reaches the mean of `base`, as a share of the cost at which `base` does.

    The base does where each of its runs first reaches its own end. The cost is block-forwards, or images where these
    were not counted. None if a run does not reach it, if the row is below it in the end, and for probes, which all cost
    the same.
    """
    target, own = base.main(), row.main()
    if row.task in PROBES or not target or not own or own.mean < target.mean:
        return None
    for cost, total in (('block_forwards', 'block_forwards'), ('images', 'images_seen')):
        if base.total(total) and row.total(total) is not None:
            ends = [reach(curve, curve[-1][1]) for run in base.runs if (curve := final_points(run, cost))]
            reached = [reach(final_points(run, cost), target.mean) for run in row.runs]
            return fmean(reached) / fmean(ends) if None not in reached and len(ends) == len(base.runs) else None
    return None


def is_incubation(row: Row) -> bool:
    """Return whether a row is one of incubation, by its phases or by its name."""
    return any(map(trains_modules, row.runs)) or row.method.startswith('incub')


def method_faults(row: Row) -> list[str]:
    """Return where the name of a row's method contradicts what its runs did."""
    if any(map(trains_modules, row.runs)):
        control = any(row.method in methods for methods in CONTROLS.values())
        return [f'named {row.method}, but it trained modules'] if control else []
    grown = any(phase['name'] in FINAL for run in row.runs for phase in run.result['phases'])
    return [f'named {row.method}, but it trained no modules'] if grown and row.method.startswith('incub') else []


def cost_faults(row: Row, base: Row | None) -> list[str]:
    """Return the share of a row's cost that its baseline has, if these differ."""
    share = cost_share(base, row) if base and base is not row else None
    return [f'{base.label} has {100 * share:.0f} % of its cost'] if share is not None and unequal(share) else []


def unequal(share: float) -> bool:
    """Return whether a cost that is this share of another is not comparable with it."""
    return not ENOUGH <= share <= 1 / ENOUGH


def control_faults(row: Row, rows: list[Row], base: Row | None) -> list[str]:
    """Return which controls an incubation lacks among the rows of its group, or has at less cost.

    For example 'no growth control' or 'growth control at 75 % of the cost'. `cost_faults` tells that of the baseline.
    """
    if not is_incubation(row):
        return []
    missing, cheap = [], []
    for name, methods in CONTROLS.items():
        shares = [cost_share(other, row) for other in rows
                  if other.group == row.group and other.method in methods and other.main()]
        # A meta model has another depth, so its weights do not fit the backbones of dense tasks.
        if not shares and (name != 'meta-model' or row.task == 'classification'):
            missing.append(name)
        known = [share for share in shares if share is not None]
        if known and max(known) < ENOUGH and not (base and base.method in methods):
            cheap.append(f'{name} control at {100 * max(known):.0f} % of the cost')
    return ([f'no {" or ".join(missing)} control'] if missing else []) + cheap


def cost_share(row: Row, other: Row) -> float | None:
    """Return what a row costs as a share of another, in block-forwards or in images; None if it is unknown."""
    for key in ('block_forwards', 'images_seen'):
        if (cost := row.total(key)) is not None and (whole := other.total(key)):
            return cost / whole
    return None


def recipe_apart(row: Row, base: Row) -> dict[str, tuple[str, str]]:
    """Return the settings in which a row differs from its baseline, beside its method's own: (its value, the base's).

    Incubation and its controls are ways of training, so their loop is their own, and the meta model's depth. A rate of
    drop path is that of fine-tuning.
    """
    recipes = [other.runs[0].result.get('recipe') for other in (row, base)]
    if row is base or not all(recipes):
        return {}
    controls = {method for methods in CONTROLS.values() for method in methods} - {DEFAULT_BASELINE}
    if row.task == 'classification' and any(is_incubation(one) or one.method in controls for one in (row, base)):
        alone = 'meta_only' in (row.method, base.method)
        own = OF_THE_METHOD + OF_THE_META_MODEL * alone
        recipes = [{key: value for key, value in _with_drop_path(recipe).items() if not key.startswith(own)}
                   for recipe in recipes]
    own, other = settings_apart(recipes)
    return {name: (own[name], other[name]) for name in own}


def _with_drop_path(recipe: dict[str, str]) -> dict[str, str]:
    """Return a recipe with the drop path of its last phase as that of its model; a rate of 0 is none."""
    rate = recipe.get(LAST_DROP_PATH, recipe.get(DROP_PATH, '0'))
    rest = {key: value for key, value in recipe.items() if key != DROP_PATH}
    return rest if rate in ('0', '0.0', 'null') else rest | {DROP_PATH: rate}
