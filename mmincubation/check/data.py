"""Check the data of every dataloader of a config."""
from pathlib import Path

from mmincubation.config.keys import data_paths
from mmincubation.errors import ConfigError
from mmincubation.recovery.data_errors import num_classes
from mmincubation.registry import leaf_datasets

from . import coco, folders, hf, masks  # noqa: F401  each registers its checkers
from .layouts import CHECKERS, DatasetCheck, DatasetSummary, checker_of
from .report import Report
from .sampling import Sampling

MODES = ('train', 'val', 'test')


def report_data(cfg, report: Report, sampling: Sampling) -> dict[str, int]:
    """Report problems of the data of all dataloaders, each data set once; return the images per epoch of each mode."""
    images, seen, classes = {}, {}, {}
    for mode in MODES:
        place = f'{mode}_dataloader.dataset'
        for dataset in leaf_datasets((cfg.get(f'{mode}_dataloader') or {}).get('dataset') or {}):
            # val and test often share their data, and a pipeline changes nothing on disk.
            key = str({k: v for k, v in dataset.items() if k != 'pipeline'})
            if key in seen:
                report.say(f'{place}: as {seen[key][0]}')
            else:
                seen[key] = place, _look_at(cfg, dataset, place, report, sampling)
            found = seen[key][1]
            if found:
                images[mode] = images.get(mode, 0) + found.images
                classes.setdefault(mode, found.classes)
    _compare_classes(classes, report)
    return images


def _look_at(cfg, dataset: dict, place: str, report: Report, sampling: Sampling) -> DatasetSummary | None:
    checker = checker_of(dataset['type'])
    if checker is None:
        report.say(f'{place}: not looked at, there is no checker for {dataset["type"]} (there are: '
                   f'{", ".join(sorted(CHECKERS))})')
        return None
    scope = cfg.get('default_scope') or 'mmengine'
    check = DatasetCheck(place, dataset, scope, num_classes(cfg.model), report, sampling)
    gone = missing_paths(check)
    if gone:
        report.say(f'{place}: not looked at, missing: {", ".join(gone)}')
        return None
    try:
        found = checker(check)
    except (KeyError, TypeError, AttributeError, ConfigError, OSError) as error:
        check.problem(f'cannot be read ({type(error).__name__}: {error})',
                      'compare its layout with docs/guides/data.md')
        return None
    report.say(f'{place}: {found.text}')
    return found


def missing_paths(check: DatasetCheck) -> list[str]:
    """Return the paths of the data set that do not exist; the config's problems name them too, with the remedy."""
    return sorted({path for _, path in data_paths(check.options) if not Path(path).exists()})


def _compare_classes(classes: dict, report: Report) -> None:
    """Report classes that differ from training's: a class's number is its place in the sorted folder names."""
    train = classes.get('train')
    for mode in ('val', 'test'):
        other = classes.get(mode)
        if train is None or other is None:
            continue
        for name in sorted(set(train) ^ set(other)):
            where = 'train' if name in train else mode
            report.problem(f'{mode}_dataloader.dataset', 'classes that are not the same as in training',
                           'unpack both from the same archives', f'{name} only in {where}')
