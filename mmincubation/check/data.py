"""Check the data of every dataloader of a config."""
from collections.abc import Iterator
from pathlib import Path

from mmincubation.config.classes import class_counts, class_problems
from mmincubation.config.keys import data_paths
from mmincubation.errors import ConfigError

from . import coco, folders, masks  # noqa: F401  each registers its checkers
from .batches import nested_datasets
from .layouts import CHECKERS, DatasetCheck, DatasetSummary, checker_of
from .report import Report
from .sampling import Sampling

MODES = ('train', 'val', 'test')


def report_data(cfg, report: Report, sampling: Sampling) -> dict[str, int]:
    """Report problems of the data of all dataloaders, each data set once; return the images per epoch of each mode."""
    images, seen = {}, {}
    for mode in MODES:
        place = f'{mode}_dataloader.dataset'
        for dataset in _leaves((cfg.get(f'{mode}_dataloader') or {}).get('dataset') or {}):
            # val and test often share their data, and a pipeline changes nothing on disk.
            key = str({k: v for k, v in dataset.items() if k != 'pipeline'})
            if key in seen:
                report.say(f'{place}: as {seen[key][0]}')
            else:
                seen[key] = place, _look_at(cfg, dataset, place, report, sampling)
            found = seen[key][1]
            if found:
                images[mode] = images.get(mode, 0) + found.images
    _report_classes(cfg, report)
    return images


def _leaves(dataset: dict) -> Iterator[dict]:
    """Yield the data sets that read files: those that wrap no other."""
    yield from (d for d in nested_datasets(dataset) if d.get('type') and 'dataset' not in d and 'datasets' not in d)


def _look_at(cfg, dataset: dict, place: str, report: Report, sampling: Sampling) -> DatasetSummary | None:
    checker = checker_of(dataset['type'])
    if checker is None:
        report.say(f'{place}: not looked at, there is no checker for {dataset["type"]} (there are: '
                   f'{", ".join(sorted(CHECKERS))})')
        return None
    scope = cfg.get('default_scope') or 'mmengine'
    check = DatasetCheck(place, dataset, scope, _num_classes(cfg), report, sampling)
    gone = missing_paths(check)
    if gone:
        report.say(f'{place}: not looked at, missing: {", ".join(gone)}')
        return None
    try:
        found = checker(check)
    except ConfigError as error:  # written for users, by the data set itself
        check.problem(str(error).removeprefix(f'{place}: '), '')
        return None
    except (KeyError, TypeError, AttributeError, OSError) as error:
        check.problem(f'cannot be read ({type(error).__name__}: {error})',
                      'compare its layout with docs/guides/data.md')
        return None
    report.say(f'{place}: {found.text}')
    return found


def missing_paths(check: DatasetCheck) -> list[str]:
    """Return the paths of the data set that do not exist; the config's problems name them too, with the remedy."""
    return sorted({path for _, path in data_paths(check.options) if not Path(path).exists()})


def _num_classes(cfg) -> int | None:
    return next((count for _, count in class_counts(cfg.model, cfg.get('default_scope') or 'mmengine')), None)


def _report_classes(cfg, report: Report) -> None:
    """Report classes that differ, of val and test once if they share their data."""
    lines = {line.partition(': ')[2]: line for mode in ('test', 'train') for line in class_problems(cfg, mode)}
    for line in lines.values():
        report.problem('', line, '')
