"""What a run does with samples that cannot be used: `data_errors = 'raise'` or `'skip'` in its config."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmengine.dist import master_only

from mmincubation.datasets.records import LIMIT, LISTED, RECORDS, read_records, summary_of
from mmincubation.resumable.protocol import BaseHook


def check_samples(runner, *kinds: str) -> None:
    """Have a runner that has not built its data sets yet put each of them into a CheckedDataset; its config stays.

    Validation and test always raise: a number that was measured on other images is another number.
    """
    cfg = runner.cfg
    for kind in kinds:
        if loader := getattr(runner, name := f'_{kind}_dataloader'):
            options = dict(place=f'{kind}_dataloader.dataset', num_classes=num_classes(cfg.model), data_errors='raise')
            if kind == 'train':
                options |= dict(data_errors=cfg.get('data_errors', 'raise'), records=runner.work_dir,
                                max_data_errors=cfg.get('max_data_errors', LIMIT))
            setattr(runner, name, dict(loader, dataset=_wrapped(loader['dataset'], options)))


def _wrapped(dataset: dict, options: dict) -> dict:
    """The same with each data set that reads files in a CheckedDataset."""
    if 'dataset' in dataset:
        return dict(dataset, dataset=_wrapped(dataset['dataset'], _below(options, 'dataset')))
    if 'datasets' in dataset:
        inner = enumerate(dataset['datasets'])
        return dict(dataset, datasets=[_wrapped(d, _below(options, f'datasets.{i}')) for i, d in inner])
    return dict(type='mmincubation.CheckedDataset', dataset=dataset, **options)


def _below(options: dict, key: str) -> dict:
    return dict(options, place=f'{options["place"]}.{key}')


def num_classes(model: dict) -> int | None:
    """The number of classes that a model is built for; None if it does not say."""
    model = model.get('module', model)  # of test-time augmentation
    if 'arch' in model:
        from mmincubation.vit import Arch
        return Arch.parse(model['arch']).num_classes
    roi_head = model.get('roi_head') or {}
    heads = [model.get('decode_head'), roi_head.get('bbox_head'), model.get('bbox_head')]
    heads = [h[-1] if isinstance(h, list | tuple) else h for h in heads]
    return next((head['num_classes'] for head in heads if head and 'num_classes' in head), None)


def skipped_samples(runner, folders: Iterable[Path]) -> dict:
    """What result.json says of them, where samples were or might be skipped; `folders` are its work dirs."""
    records = read_records(*folders)
    if runner.cfg.get('data_errors') != 'skip' and not records:  # a policy that was changed forgets nothing
        return {}
    return dict(data_errors=dict(skipped=len(records), first=[
        dict(index=record['index'], fault=record['fault']) for record in records[:LISTED]]))


class DataErrorsHook(BaseHook):
    """Tells the log which samples were skipped, when there are new ones; the tools add it to every run."""

    def __init__(self, interval: int = 50):
        self.interval, self.told = interval, 0

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Log now and then."""
        if self.every_n_train_iters(runner, self.interval):
            self._tell(runner)

    def after_train(self, runner) -> None:
        """Log the last ones."""
        self._tell(runner)

    def add_to_result(self, runner, result: dict, folders: list[Path]) -> None:
        """Add the samples that were skipped in these work dirs."""
        result |= skipped_samples(runner, folders)

    @master_only
    def _tell(self, runner) -> None:
        records = read_records(runner.work_dir)
        if len(records) > self.told:
            runner.logger.warning(f'{len(records)} samples of the training data were skipped, for the next good one '
                                  f'each: {summary_of(records)}; all are in {Path(runner.work_dir) / RECORDS}')
            self.told = len(records)
