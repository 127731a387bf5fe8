"""Raise or skip samples that cannot be used: `data_errors = 'raise'` or `'skip'` in the config."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mmengine.dist import master_only
from mmengine.registry import METRICS

from mmincubation.config.classes import class_counts, training_names
from mmincubation.datasets.checked import CheckedDataset
from mmincubation.datasets.classes import Names, numbered
from mmincubation.datasets.labels import left_out, require_classes
from mmincubation.datasets.records import LIMIT, LISTED, RECORDS, read_records, summary_of
from mmincubation.downstream.coco_metric import named_coco_metric
from mmincubation.errors import ConfigError, DataError
from mmincubation.resumable.protocol import BaseHook
from mmincubation.vit import Arch


def wrap_datasets(runner, *kinds: str, known: tuple[Names, str] | None = None) -> None:
    """Put each data set of a runner that has not built them yet into a CheckedDataset; its config stays unchanged.

    `kinds` are `train`, `val` or `test`. Validation and test always raise: a metric of fewer images is another metric.
    Their CocoMetric becomes a NamedCocoMetric, which knows the classes as the data set does. Classes are numbered as in
    `known`, names and their source, or as in training.
    """
    cfg, scope = runner.cfg, runner.cfg.get('default_scope') or 'mmengine'
    known = known or training_names(cfg)
    count = next((count for _, count in class_counts(cfg.model, scope)), None)
    size = Arch.parse(cfg.model.arch).img_size if 'arch' in cfg.model else None
    for kind in kinds:
        if loader := getattr(runner, name := f'_{kind}_dataloader'):
            options = dict(place=f'{kind}_dataloader.dataset', num_classes=count, data_errors='raise', size=size)
            if kind == 'train':
                options |= dict(data_errors=cfg.get('data_errors', 'raise'), records=runner.work_dir,
                                max_data_errors=cfg.get('max_data_errors', LIMIT))
            dataset = numbered(loader['dataset'], known and known[0], scope)
            setattr(runner, name, dict(loader, dataset=_wrapped(dataset, options)))
        if evaluator := getattr(runner, name := f'_{kind}_evaluator', None):
            setattr(runner, name, named_metrics(evaluator))


def named_metrics(evaluator):
    """Return an evaluator's config with a NamedCocoMetric in the place of each plain CocoMetric of mmdet."""
    if isinstance(evaluator, list | tuple):
        return [named_metrics(metric) for metric in evaluator]
    if isinstance(evaluator, dict) and 'metrics' in evaluator:  # mmdet's MultiDatasetsEvaluator
        return dict(evaluator, metrics=named_metrics(evaluator['metrics']))
    if not isinstance(evaluator, dict) or 'type' not in evaluator:
        return evaluator
    with METRICS.switch_scope_and_registry(evaluator.get('_scope_')) as registry:
        cls = registry.get(evaluator['type']) if isinstance(evaluator['type'], str) else evaluator['type']
    stock = ('mmdet.evaluation.metrics.coco_metric', 'CocoMetric')
    if (getattr(cls, '__module__', None), getattr(cls, '__qualname__', None)) != stock:
        return evaluator
    return dict(evaluator, type=named_coco_metric)


def _wrapped(dataset: dict, options: dict) -> dict:
    """Return the config with each data set that reads files wrapped in a CheckedDataset."""
    # Wrappers such as RepeatDataset read no file: the check belongs around the data set inside.
    if 'dataset' in dataset:
        dataset = dict(dataset, dataset=_wrapped(dataset['dataset'], _below(options, 'dataset')))
        if not dataset.get('pipeline'):  # MultiImageMixDataset has transforms of its own, which may fail too
            return dataset
        return dict(type='mmincubation.CheckedDataset', dataset=dataset, **options)
    if 'datasets' in dataset:
        return dict(dataset, datasets=[_wrapped(inner, _below(options, f'datasets.{i}'))
                                       for i, inner in enumerate(dataset['datasets'])])
    return dict(type='mmincubation.CheckedDataset', dataset=dataset, **options)


def _below(options: dict, key: str) -> dict:
    return dict(options, place=f'{options["place"]}.{key}')


def checked_in(dataset) -> Iterator[CheckedDataset]:
    """Yield the CheckedDatasets inside of a data set that was built."""
    if isinstance(dataset, CheckedDataset):
        yield dataset
        return
    for inner in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if inner is not None:
            yield from checked_in(inner)


def skipped_samples(runner, folders: Iterable[Path]) -> dict:
    """Return the entry of result.json about skipped samples; empty if none were or could have been skipped.

    `folders` are the work dirs of the run.
    """
    records = read_records(*folders)
    if runner.cfg.get('data_errors') != 'skip' and not records:  # records of an earlier policy still count
        return {}
    return dict(data_errors=dict(skipped=len(records), first=[
        dict(index=record['index'], fault=record['fault']) for record in records[:LISTED]]))


class DataErrorsHook(BaseHook):
    """Log which samples were skipped, when there are new ones; the tools add it to every run."""

    def __init__(self, interval: int = 50):
        self.interval, self.told = interval, 0

    def before_train(self, runner) -> None:
        """Warn if the label pictures that are read first hold a single class, or images are left out.

        Raises:
            DataError: all label pictures do.
        """
        for data in checked_in(runner.train_dataloader.dataset):
            if hasattr(data, 'img_suffix'):
                try:
                    what = require_classes(data.dataset)
                except ConfigError as error:
                    raise DataError(f'{data.place}: {error}') from error
                for line in filter(None, [what, left_out(data.dataset)]):
                    runner.logger.warning(f'{data.place}: {line}')

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log new skipped samples every `interval` iterations."""
        if self.every_n_train_iters(runner, self.interval):
            self._tell(runner)

    def after_train(self, runner) -> None:
        """Log the samples skipped since the last log line."""
        self._tell(runner)

    def add_to_result(self, runner, result: dict, folders: list[Path]) -> None:
        """Add the samples skipped in these work dirs to the result."""
        result |= skipped_samples(runner, folders)

    @master_only
    def _tell(self, runner) -> None:
        # Loader workers write the records to files, so rank 0 sees those of all ranks.
        records = read_records(runner.work_dir)
        if len(records) > self.told:
            runner.logger.warning(f'{len(records)} samples of the training data were skipped, for the next good one '
                                  f'each: {summary_of(records)}; all are in {Path(runner.work_dir) / RECORDS}')
            self.told = len(records)
