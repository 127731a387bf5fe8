"""Read the numbers that runs have logged: each step once, however often a run was killed and resumed."""
from __future__ import annotations

import csv
import io
import json
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmincubation.atomic import write_atomic
from mmincubation.errors import ConfigError, clean
from mmincubation.result import METRICS

from .collect import collect, files_below
from .data_forms import cell
from .rows import merge_seeds

LOG = 'scalars.json'  # of mmengine's LocalVisBackend: a start of a run writes RUN/TIME/vis_data/scalars.json
MARK, AT = 'phase/', 'at_iter'  # of hooks.PhaseLogProcessor
USUAL = ('loss', 'lr', *(key for metrics in METRICS.values() for _, key, _ in metrics))
COLUMNS = ('run', 'phase', 'kind', 'epoch', 'iteration')
FORMS = ('.png', '.svg', '.csv')


@dataclass(frozen=True)
class Logged:
    """Hold what a run logged after `iteration` iterations; `phase` is '' in a run without phases."""

    iteration: int
    kind: str  # 'train' or 'val'
    phase: str
    epoch: int | None
    values: dict[str, float]


@dataclass(frozen=True)
class Curve:
    """Hold all that a run has logged, in order."""

    name: str
    logged: list[Logged]

    def phases(self) -> list[tuple[str, int, int]]:
        """Return the phases that train, in order: name, and the iterations before and after it."""
        ends: dict[str, int] = {}
        for each in self.logged:
            if each.phase and (each.kind == 'train' or each.phase in ends):
                ends[each.phase] = max(each.iteration, ends.get(each.phase, 0))
        return list(zip(ends, [0, *ends.values()], ends.values(), strict=False))


def main(args: Namespace) -> int:
    """Run the command of tools/curves.py; return 0, 1 if a folder has no run, 2 if nothing could be drawn."""
    from .curves_plot import curves_picture
    out = args.out or args.folders[0] / 'curves.png'
    try:
        if out.suffix not in FORMS:
            raise ConfigError(f'--out {out}: give a name that ends in {", ".join(FORMS)}')
        found, empty = find_curves(args.folders)
        for folder in empty:
            said = f'holds no run that has logged numbers (TIME/vis_data/{LOG})' if folder.is_dir() else 'is no folder'
            print_error(f'{folder} {said}')
        if not found:
            return 2
        keys = chosen_keys(found, args.keys)
        write_atomic(out, to_csv(found, keys).encode() if out.suffix == '.csv' else
                     curves_picture(found, keys, out.suffix[1:]))
    except (ConfigError, OSError) as error:
        print_error(f'error: {error}')
        return 2
    print(clean(f'{", ".join(keys)} of {", ".join(curve.name for curve in found)}: see {out}'))
    return int(bool(empty))


def print_error(text: str) -> None:
    """Print one line on stderr."""
    import sys
    print(clean(text), file=sys.stderr)


def find_curves(folders: Iterable[Path]) -> tuple[list[Curve], list[Path]]:
    """Read all runs below folders; also return the folders without any.

    A run is a folder that holds starts of a training. The phases of an incubation that ran one by one, each in a folder
    of its name, are one run, that of the folder above.
    """
    runs: dict[Path, list[Logged]] = {}
    empty = []
    for folder in folders:
        starts: dict[Path, list[Path]] = {}
        for path in files_below(folder, LOG):
            if path.parent.name == 'vis_data':
                starts.setdefault(path.parents[2], []).append(path)
        found = {run: logged for run, paths in starts.items() if (logged := read_run(paths))}
        runs |= found
        empty += [] if found else [folder]
    joined = join_phases(runs)
    names = run_names(list(joined))
    return [Curve(names[run], logged) for run, logged in joined.items()], empty


def read_run(paths: Iterable[Path]) -> list[Logged]:
    """Return what the starts of a run have logged; what a later start did again replaces what was there.

    Where the iterations go back, a start has resumed: what was logged beyond that is left out.
    """
    kept: dict[tuple, Logged] = {}
    last = 0
    for path in sorted(set(paths)):  # the names of the folders above are times
        for values in read_lines(path):
            if each := _logged(values, kept.values()):
                if each.iteration < last:
                    kept = {key: other for key, other in kept.items() if other.iteration <= each.iteration}
                last = each.iteration
                kept[each.iteration, each.kind, each.phase] = each
    return sorted(kept.values(), key=lambda each: each.iteration)


def read_lines(path: Path) -> Iterator[dict[str, float]]:
    """Yield the numbers of each line of a file; a line that a kill has cut is left out."""
    for text in path.read_text('utf-8', 'replace').splitlines():
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if isinstance(line, dict):
            yield {key: float(value) for key, value in line.items() if _is_number(value)}


def _is_number(value: object) -> bool:
    return type(value) is float or type(value) is int and abs(value) < 2**63


def _logged(values: dict[str, float], before: Collection[Logged]) -> Logged | None:
    phase = next((key.removeprefix(MARK) for key in values if key.startswith(MARK)), '')
    step, epoch = values.pop('step', None), values.pop('epoch', None)
    iteration, done = values.pop('iter', None), values.pop(AT, None)
    numbers = {key: value for key, value in values.items() if not key.startswith(MARK)}
    try:
        if iteration is not None:
            return Logged(int(iteration), 'train', phase, None if epoch is None else int(epoch), numbers)
        if step is None:
            return None
        by_epoch = any(each.epoch is not None for each in before if each.kind == 'train')
        at = _validated_at(int(step), by_epoch, before) if done is None else int(done)
        return Logged(at, 'val', phase, int(step) if by_epoch else None, numbers)
    except (ValueError, OverflowError):  # of nan and infinity
        return None


def _validated_at(step: int, by_epoch: bool, before: Collection[Logged]) -> int:
    """Return about the iteration of a validation that does not say it: its step is an epoch, or 0, or what it says."""
    trained = [each for each in before if each.kind == 'train' and (not by_epoch or each.epoch <= step)]
    return step if step and not by_epoch else max((each.iteration for each in trained), default=0)


def join_phases(runs: dict[Path, list[Logged]]) -> dict[Path, list[Logged]]:
    """Put the phases of an incubation that ran in folders of their names behind one another."""
    joined: dict[Path, list[Logged]] = {}
    for run, logged in sorted(runs.items(), key=lambda item: (item[0].parent, *_order(item[0].name))):
        alone = _is_phase(run.name) and {each.phase for each in logged if each.kind == 'train'} <= {run.name, ''}
        before = joined.setdefault(run.parent if alone else run, [])
        ends = [max((getattr(each, key) or 0 for each in before), default=0) for key in ('iteration', 'epoch')]
        before += [replace(each, phase=each.phase or run.name * alone, iteration=each.iteration + ends[0],
                           epoch=None if each.epoch is None else each.epoch + ends[1]) for each in logged]
    return joined


def _is_phase(name: str) -> bool:
    return name in ('meta', 'modules', 'finetune') or name.startswith('module_') and name[7:].isdecimal()


def _order(name: str) -> tuple[int, int, str]:
    """Return what the names of phases are sorted by: meta, modules by their number, fine-tuning."""
    number = name.rpartition('_')[2]
    return dict(meta=0, finetune=2).get(name, 1), int(number) if number.isdecimal() else 0, name


def run_names(folders: list[Path]) -> dict[Path, str]:
    """Return the names of runs: as in the leaderboard, with the seed where a row has several; else their folders'."""
    results = [path for folder in folders if (path := folder / 'result.json').is_file()]
    names = {folder: folder.resolve().name for folder in folders}
    for row in merge_seeds(collect(results)[0]):
        for run in row.runs:
            seed = f', seed {run.result["seed"]}' if len(row.runs) > 1 else ''
            names[run.path.parent] = row.label + seed
    counts = Counter(names.values())
    return {folder: clean(name if counts[name] == 1 else f'{name} ({folder})') for folder, name in names.items()}


def chosen_keys(found: list[Curve], keys: list[str] | None) -> list[str]:
    """Return the keys that are drawn: those asked for, or the usual ones that a run has.

    Raises:
        ConfigError: no run has one of them.
    """
    known = {key for curve in found for each in curve.logged for key in each.values}
    if strange := [key for key in keys or [] if key not in known]:
        raise ConfigError(f'--keys {strange[0]}: no run has logged it; there are {", ".join(sorted(known))}')
    chosen = list(dict.fromkeys(keys or [key for key in USUAL if key in known] or sorted(known)))
    if not chosen:
        raise ConfigError('these runs have logged no numbers')
    return chosen


def to_csv(found: list[Curve], keys: list[str]) -> str:
    """Return a table with a row for each logged step that has one of the keys."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator='\n')
    writer.writerow(map(cell, [*COLUMNS, *keys]))
    for curve in found:
        for each in curve.logged:
            if any(key in each.values for key in keys):
                names = (curve.name, each.phase, each.kind, each.epoch, each.iteration)
                writer.writerow([*map(cell, names), *(each.values.get(key) for key in keys)])
    return out.getvalue()
