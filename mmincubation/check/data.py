"""Check the data of every dataloader of a config."""
from collections import Counter
from copy import copy
from pathlib import Path

from mmengine.registry import DATASETS

from mmincubation.config.classes import class_counts, class_problems, training_names
from mmincubation.config.keys import data_paths
from mmincubation.datasets.classes import Names
from mmincubation.datasets.classification import ClsDataset
from mmincubation.datasets.coco_rules import absent
from mmincubation.errors import ConfigError
from mmincubation.registry import leaf_datasets
from mmincubation.vit import Arch

from . import coco, folders, masks  # noqa: F401  each registers its checkers
from .layouts import CHECKERS, DatasetCheck, DatasetSummary, checker_of
from .metrics import report_metrics
from .report import Report
from .sampling import Sampling

MODES = ('train', 'val', 'test')


def report_data(cfg, report: Report, sampling: Sampling) -> dict[str, int]:
    """Report problems of the data of all dataloaders, each data set once; return the images per epoch of each mode."""
    images, seen = {}, {}
    for mode in MODES:
        place = f'{mode}_dataloader.dataset'
        dataset = (cfg.get(f'{mode}_dataloader') or {}).get('dataset') or {}
        parts = [_once(cfg, leaf, place, report, sampling, seen) for _, leaf in leaf_datasets(dataset)]
        if not parts or None in parts:
            continue
        if mode == 'train':
            _report_objects(place, parts, report)
        built = _build(cfg, dataset, place, report, {key: found for key, (_, found) in seen.items()})
        if built is not None:
            images[mode] = len(built)
            report_metrics(cfg, mode, built, report)
    _report_classes(cfg, report)
    return images


def _once(cfg, leaf: dict, place: str, report: Report, sampling: Sampling, seen: dict) -> DatasetSummary | None:
    """Look at a data set, or say that it was looked at: val and test often share their data."""
    if (key := _key(leaf)) in seen:
        report.say(f'{place}: as {seen[key][0]}')
    else:
        seen[key] = place, _look_at(cfg, leaf, place, report, sampling)
    return seen[key][1]


def _key(dataset: dict) -> str:
    return str({k: v for k, v in dataset.items() if k != 'pipeline'})  # a pipeline changes nothing on disk


def _build(cfg, dataset: dict, place: str, report: Report, found: dict[str, DatasetSummary]):
    """Build a data set's wrappers around what its checkers have read, to count what a loader gives; None if not."""
    names, _ = training_names(cfg) or ((), '')

    def around(settings: dict) -> dict:
        if 'datasets' in settings:
            return dict(settings, datasets=[around(inner) for inner in settings['datasets']])
        if 'dataset' in settings:
            return dict(settings, dataset=around(settings['dataset']))
        return dict(type=lambda: _numbered(found[_key(settings)].built, names))

    try:
        built = DATASETS.build(dict(around(dataset), _scope_=cfg.get('default_scope') or 'mmengine'))
        len(built)
        return built
    except Exception as error:  # wrappers of any kind
        report.problem(place, f'cannot be built ({type(error).__name__}: {error})', 'correct its wrappers')
        return None


def _numbered(built, names: Names):
    """Return classified images with the run's class numbers, those of training; strange names have their own line."""
    if isinstance(built, ClsDataset) and built.classes != names and {*built.classes} <= {*names}:
        built = copy(built)
        built.number_by(names)
    return built


def _report_objects(place: str, parts: list[DatasetSummary], report: Report) -> None:
    """Report classes of the training data that no object has, in none of its parts."""
    totals = Counter()
    for part in parts:
        totals.update(part.objects or {})
    empty = [name for name, count in totals.items() if not count]
    if isinstance(parts[0].built, ClsDataset):
        for name in empty:
            report.problem(place, 'classes without an image', 'add images, take a larger fraction, or leave the class '
                           'out', name)
    elif empty:
        report.problem(place, absent(empty, len(totals)), 'label some, or leave the class out of metainfo.classes')


def _look_at(cfg, dataset: dict, place: str, report: Report, sampling: Sampling) -> DatasetSummary | None:
    checker = checker_of(dataset['type'])
    if checker is None:
        report.skipped = True
        report.say(f'{place}: not looked at, there is no checker for {dataset["type"]} (there are: '
                   f'{", ".join(sorted(CHECKERS))})')
        return None
    scope = cfg.get('default_scope') or 'mmengine'
    size = Arch.parse(cfg.model.arch).img_size if 'arch' in cfg.model else None
    check = DatasetCheck(place, dataset, scope, _num_classes(cfg), report, sampling, size)
    gone = missing_paths(check)
    if gone:
        report.say(f'{place}: not looked at, missing: {", ".join(gone)}')
        return None
    try:
        found = checker(check)
    except ConfigError as error:  # written for users, by the data set itself
        check.problem(str(error).removeprefix(f'{place}: '), '')
        return None
    except (KeyError, TypeError, AttributeError, ImportError, OSError) as error:
        check.problem(f'cannot be read ({type(error).__name__}: {error})',
                      'compare its layout with docs/guides/data.md')
        return None
    if found is not None:
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
