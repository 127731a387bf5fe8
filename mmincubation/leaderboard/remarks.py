"""What a reader must know of a row, the gravest first, each in a few words."""
from __future__ import annotations

from statistics import fmean

from mmincubation.result import METRICS

from .collect import Run
from .rows import Row, first_few, missing_phases, unmeasured
from .stats import Difference
from .versus import control_faults, cost_faults, method_faults, unequal

EVEN = 1.05  # between the costs of the seeds of a row


def remarks_of(row: Row, rows: list[Row], base: Row | None, apart: dict[str, Difference],
               unlike: dict[str, tuple[str, str]], wrote: dict[str, Run]) -> list[str]:
    """Return the remarks of a row; `rows` are all rows, `apart` and `unlike` what tells it from its baseline `base`.

    `wrote` has the run that wrote a weight file of this sha256. Of `apart` the task's main metric counts.
    """
    found = [*_seeds(row), *_not_measured(row), *method_faults(row), *_skipped(row), *_cost(row),
             *_weights(row, wrote), *_pretraining(row, base, wrote)]
    if unlike and base:
        texts = [f'{name} {own} | {other}' for name, (own, other) in unlike.items()]
        found.append(f'unlike {base.label}: {first_few(texts)}')
    found += cost_faults(row, base) + control_faults(row, rows, base)
    main = apart.get(METRICS[row.task][0][0])
    if main and not main.how.startswith('paired'):
        found.append(main.how)
    return found + _surroundings(row, base)


def _surroundings(row: Row, base: Row | None) -> list[str]:
    """Return that machines or versions of torch differ, in the row or from its baseline."""
    if base and base is not row and row.machines() != base.machines() and row.total('block_forwards') is None:
        return [f'on {", ".join(row.machines())}, the baseline on {", ".join(base.machines())}']
    own, other = row.surroundings(), base.surroundings() if base else set()
    return [f'{what} of several machines or versions of torch' for what, several in (
        ('seeds', len(own) > 1), (f'it and {base.label}' if base else '', other and own != other)) if several][:1]


def _seeds(row: Row) -> list[str]:
    found = []
    if row.repeated:
        times = sum(run.result['seed'] == row.repeated[0] for run in row.runs)
        found.append(f'seed {row.repeated[0]} is there {times} times: delete all but one result, or give one another '
                     'method')
    if not all(run.result.get('recipe') for run in row.runs):
        found.append('written by an older version, without its recipe: seeds are not merged')
    return found


def _not_measured(row: Row) -> list[str]:
    """Return each metric that a run did not measure; the main one, and others that some run of the row has."""
    main, found = METRICS[row.task][0][0], {}
    for run in row.runs:
        metrics, notes = run.result['metrics'], run.result.get('notes', {})
        for title, key, factor in METRICS[row.task]:
            wanted = title == main or any(key in other.result['metrics'] for other in row.runs)
            if wanted and (why := notes.get(key) or unmeasured(metrics.get(key), factor)):
                found.setdefault(f'{title} not measured: {why}', []).append(run.result['seed'])
    return [text if len(seeds) == len(row.runs) else f'seed {", ".join(map(str, seeds))}: {text}'
            for text, seeds in found.items()]


def _skipped(row: Row) -> list[str]:
    """Return the runs that left out samples or steps."""
    samples = sum(run.result.get('data_errors', {}).get('skipped', 0) for run in row.runs)
    steps = sum(run.result.get('skipped_steps', 0) for run in row.runs)
    return [f'{count:,} {what} skipped' for count, what in ((samples, 'training samples'), (steps, 'steps')) if count]


def _cost(row: Row) -> list[str]:
    """Return what makes the costs of the seeds unequal or unknown."""
    missing = [(run.result['seed'], missing) for run in row.runs if (missing := missing_phases(run))]
    if missing:
        return [f'cost unknown: seed {missing[0][0]} ran {missing[0][1][0]} elsewhere or with other settings']
    images = [run.result['images_seen'] for run in row.runs]
    uneven = max(images) > EVEN * min(images)
    return [f'its seeds saw {min(images):,} to {max(images):,} images'] if uneven else []


def _weights(row: Row, wrote: dict[str, str]) -> list[str]:
    """Return what the seeds' starting weights do not share.

    Files that runs of this leaderboard wrote may differ: these are the seeds of the pre-training.
    """
    files = [run.result['weights'] for run in row.runs]
    begun = [file for file in files if file]
    if begun and len(begun) < len(files):
        return [f'{len(begun)} of {len(files)} runs began with weights']
    if len({file['coverage'] for file in begun}) > 1:
        return ['its runs loaded their weights differently']
    unknown = {file['sha256'] for file in begun if file['sha256'] not in wrote}
    return [f'{len(unknown)} weight files of unknown origin'] if len(unknown) > 1 else []


def _pretraining(row: Row, base: Row | None, wrote: dict[str, Run]) -> list[str]:
    """Return what the pre-training behind a row's weights does not share with its name, its seeds and its baseline."""
    others: dict[str, list[int]] = {}
    for run in row.runs:
        for source in _sources([run], wrote):
            others.setdefault(source.method, []).append(run.result['seed'])
    found = [f'seed {", ".join(map(str, seeds))} began with weights of {method}'
             for method, seeds in others.items() if method != row.method]
    begun = {run.result['weights']['sha256'] for run in row.runs if run.result['weights']}
    if len(begun) == 1 < len(row.runs):
        found.append('all seeds began with one weight file: ± leaves out its pre-training')
    costs = [[source.result['block_forwards'] for source in _sources(side.runs, wrote)] for side in (row, base or row)]
    if all(cost and all(cost) for cost in costs) and unequal(share := fmean(costs[1]) / fmean(costs[0])):
        found.append(f'pre-training of {base.label} had {100 * share:.0f} % of the cost')
    return found


def _sources(runs: list[Run], wrote: dict[str, Run]) -> list[Run]:
    """Return the runs that wrote the weights with which runs began."""
    return [wrote[file['sha256']] for run in runs if (file := run.result['weights']) and file['sha256'] in wrote]
