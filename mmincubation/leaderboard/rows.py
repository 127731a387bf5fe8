"""Merge runs that differ by their seed into rows, and name what tells rows apart."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, groupby
from statistics import fmean

from mmincubation.result import METRICS, Phase

from .collect import TASKS, Run
from .stats import Mean, mean_of

FIRST_NAMED = ('lr', 'batch', 'max_epochs', 'epochs', 'max_iters', 'start', 'mode', 'depth')
SHOWN = 2  # settings that the name or a remark of a row has at most
FINAL = ('assembled', 'finetune')  # phases of an incubation that train the whole model
MODULES = 4  # IncubationModel's default


@dataclass(frozen=True)
class Row:
    """Hold runs that differ by their seed only; `unlike` are settings that tell it from rows of the same method.

    `label` is the method, with the first of these settings: 'e2e', 'e2e (lr 0.001)'. No two rows of a group share it.
    """

    runs: list[Run]
    data: str
    unlike: dict[str, str]
    label: str

    @property
    def task(self) -> str:
        """The task of all runs."""
        return self.runs[0].task

    @property
    def model(self) -> str:
        """The model of all runs."""
        return self.runs[0].model

    @property
    def method(self) -> str:
        """The method of all runs."""
        return self.runs[0].method

    @property
    def group(self) -> tuple:
        """What the row shares with the rows that it may be compared with."""
        return self.runs[0].group

    @property
    def repeated(self) -> list[int]:
        """The seeds that several runs have."""
        seeds = [run.result['seed'] for run in self.runs]
        return sorted({seed for seed in seeds if seeds.count(seed) > 1})

    def by_seed(self, key: str, factor: float = 1) -> dict[int, list[float]]:
        """Return a metric in percent by seed, without the runs that did not measure it."""
        found: dict[int, list[float]] = {}
        for run in self.runs:
            value = run.result['metrics'].get(key)
            if unmeasured(value, factor) is None:
                found.setdefault(run.result['seed'], []).append(factor * value)
        return found

    def mean(self, key: str, factor: float = 1) -> Mean | None:
        """Return mean and interval of a metric in percent; None if no run measured it."""
        values = [value for values in self.by_seed(key, factor).values() for value in values]
        return mean_of(values, independent=not self.repeated)

    def main(self) -> Mean | None:
        """Return the metric that its task is judged by."""
        _, key, factor = METRICS[self.task][0]
        return self.mean(key, factor)

    @property
    def n(self) -> int:
        """The number of runs that measured the metric that its task is judged by."""
        return len(mean.values) if (mean := self.main()) else 0

    def seconds(self) -> float | None:
        """Return the mean device-seconds of its runs; None if unknown, or of several machines."""
        return None if len(self.machines()) > 1 else self.total('device_seconds')

    def total(self, key: str) -> float | None:
        """Return the mean over the runs of a cost; None if it is unknown for a run, or lacks phases."""
        values = [run.result[key] for run in self.runs]
        return None if None in values or any(map(missing_phases, self.runs)) else fmean(values)

    def machines(self) -> list[str]:
        """Return the machines of its runs, each once."""
        return sorted({run.machine for run in self.runs})

    def surroundings(self) -> set[tuple[str, str]]:
        """Return machine and version of torch of each run."""
        return {(run.machine, run.result['versions'].get('torch', '?')) for run in self.runs}


def unmeasured(value: float | None, factor: float = 1) -> str | None:
    """Return in words why a metric of a result is no measure; None if it is one. `factor` makes it a percentage."""
    if value is None:
        return 'its result has no such number'
    if value == -1:  # of COCO
        return '-1, the validation data have no object to find'
    return None if 0 <= factor * value <= 100.0001 else f'{value:g} is no share of {100 / factor:g}'


def missing_phases(run: Run) -> list[str]:
    """Return the phases of an incubation's recipe that its result lacks: they ran elsewhere, at a cost unknown here."""
    there = {phase['name'] for phase in run.result['phases']}
    return [name for name in planned_phases(run.result.get('recipe') or {})
            if name not in there and not (name.startswith('module_') and 'modules' in there)]


def planned_phases(recipe: dict[str, str]) -> list[str]:
    """Return the phases that a recipe trains, read as `incubation.phases` does: `module_<i>` overrides `module`."""
    if not any(key.startswith('train_cfg.phases.') for key in recipe):
        return []
    modules, key = json.loads(recipe.get('model.modules', str(MODULES))), 'train_cfg.phases.{}.epochs'
    modules = [f'module_{i}' for i in range(len(modules) if isinstance(modules, list) else modules)]
    epochs = dict.fromkeys(modules, recipe.get(key.format('module'), '0'))
    return [name for name in ('meta', *modules, 'finetune')
            if recipe.get(key.format(name), epochs.get(name, '0')) != '0']


def merge_seeds(runs: Iterable[Run]) -> list[Row]:
    """Return one row for each task, model, data, method and recipe; by model and data, best first."""
    runs = sorted(runs, key=lambda run: (run.key, run.result['seed'], run.result['finished_at']))
    names, rows = data_names(runs), []
    for _, same in groupby(runs, key=lambda run: (run.group, run.method)):
        recipes = [list(seeds) for _, seeds in groupby(same, key=lambda run: run.recipe)]
        unlike = differing([seeds[0] for seeds in recipes])
        rows += [Row(seeds, names[seeds[0].group], own, label)
                 for seeds, own, label in zip(recipes, unlike, labels(recipes, unlike), strict=True)]
    return sorted(rows, key=lambda row: (TASKS.index(row.task), row.model, row.data, row.group, -(
        row.main().mean if row.main() else -1), row.label))


def labels(recipes: list[list[Run]], unlike: list[dict[str, str]]) -> list[str]:
    """Return a name for each recipe of a method; where the settings that it shows are alike, the recipe's digest."""
    names = []
    for (run, *_), own in zip(recipes, unlike, strict=True):
        names.append(labelled(run.method, own))
    return [name if names.count(name) == 1 else f'{name[:-1]}, recipe {run.recipe[:6]})'
            for name, (run, *_) in zip(names, recipes, strict=True)]


def labelled(method: str, settings: dict[str, str]) -> str:
    """Return the name of a method with the first of these settings: 'e2e (lr 0.001)'."""
    said = first_few([f'{name} {value}' for name, value in settings.items()])
    return f'{method} ({said})' if said else method


def first_few(texts: list[str]) -> str:
    """Return the first SHOWN texts, and how many more there are."""
    more = [f'{len(texts) - SHOWN} more'] if len(texts) > SHOWN else []
    return ', '.join(texts[:SHOWN] + more)


def data_names(runs: list[Run]) -> dict[tuple, str]:
    """Return a name for the data of each group; data of one name and other content get their size or digest beside it.
    """
    said = {group: min(run.data_name for run in runs if run.group == group) for group in {run.group for run in runs}}
    names = {}
    for group, name in said.items():
        same = {other[-1] for other, its in said.items() if (its, other[0]) == (name, group[0])}
        train, size, val, val_size = group[-1]
        sized = f'{name} ({int(size):,} + {val_size} images)'
        sizes = [(data[1], data[3]) for data in same]
        if len(same) > 1:
            digest = hashlib.sha256(f'{train} {val}'.encode()).hexdigest()[:6]
            name = sized if sizes.count((size, val_size)) == 1 else f'{sized[:-1]}, content {digest})'
        names[group] = name
    return names


def differing(runs: list[Run]) -> list[dict[str, str]]:
    """Return, for runs of one method and several recipes, the settings that tell them apart: short name -> value."""
    return settings_apart([
        run.result.get('recipe') or {'config': f'"{run.result["config_sha256"][:8]}"'} for run in runs])


def settings_apart(recipes: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return, for each recipe, the values of the settings in which some of them differ, by short name."""
    keys = sorted(differing_keys(recipes))
    names = short_names(keys)
    rank = {name: i for i, name in enumerate(FIRST_NAMED)}
    # First what changes the meaning of the metric.
    keys.sort(key=lambda key: (not key.startswith('val_'), rank.get(names[key].rpartition('.')[2], len(rank)), key))
    return [{names[key]: shown(recipe.get(key)) for key in keys} for recipe in recipes]


def differing_keys(recipes: list[dict[str, str]]) -> set[str]:
    """Return the settings in which some of these recipes differ."""
    return {key for key in set().union(*recipes) if len({recipe.get(key) for recipe in recipes}) > 1}


def short_names(keys: list[str]) -> dict[str, str]:
    """Return the shortest end of each dotted name that no other has: 'optimizer.lr' -> 'lr'."""
    names = {}
    for key in keys:
        parts = key.split('.')
        ends = ['.'.join(parts[i:]) for i in range(len(parts) - 1, -1, -1)]
        names[key] = next((end for end in ends if not end[0].isdigit() and not any(
            other != key and (other == end or other.endswith(f'.{end}')) for other in keys)), key)
    return names


def shown(value: str | None) -> str:
    """Return a value of a recipe as a name shows it: without quotes, cut if it is long."""
    if value is None:
        return 'unset'
    try:
        value = str(json.loads(value))
    except ValueError:
        pass
    return value if len(value) <= 24 else f'{value[:21]}...'


def final_points(run: Run, cost: str) -> list[tuple[float, float]]:
    """Return (cost, main metric in percent) of each validation of the whole model; [] if the cost was not counted.

    The meta model and the hybrids are other models, so only their cost counts.
    """
    _, key, factor = METRICS[run.task][0]
    return [(at, factor * value) for phase, at, value in points(run, cost, key) if is_final(run, phase)]


def is_final(run: Run, phase: Phase) -> bool:
    """Return whether a phase trains the model that the run is about."""
    incubation = any(each['name'] in FINAL for each in run.result['phases'])
    # Growth alone assembles the meta model, in more blocks: that the meta model was there is not the method's merit.
    return phase['name'] == 'finetune' or phase['name'] == 'assembled' and trains_modules(run) or not incubation


def trains_modules(run: Run) -> bool:
    """Return whether a run trained modules in hybrid networks."""
    return any(phase['name'].startswith('module') and phase['images'] for phase in run.result['phases'])


def points(run: Run, cost: str, key: str) -> list[tuple[Phase, float, float]]:
    """Return (phase, cost from the begin of the run, value) of each validation that measured a metric."""
    phases, factor = run.result['phases'], next(metric[2] for metric in METRICS[run.task] if metric[1] == key)
    if any(phase[cost] is None for phase in phases) or missing_phases(run):
        return []
    found, begins = [], [0, *accumulate(phase[cost] for phase in phases)]
    for phase, begin in zip(phases, begins, strict=False):
        curve = phase.get('curve') or [phase]  # an older result has the end of the phase alone
        found += [(phase, begin + point[cost], point['metrics'][key]) for point in curve
                  if unmeasured(point['metrics'].get(key), factor) is None and point[cost] is not None]
    return found
