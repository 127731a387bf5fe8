"""Check samples while they are read: an unusable one is an error that names it, or is skipped and counted."""
from __future__ import annotations

import logging
import sys

import numpy as np
from mmengine.dataset import BaseDataset
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.registry import DATASETS as ROOT
from torch.utils.data import Dataset

from mmincubation.errors import ConfigError, DataError, one_line
from mmincubation.registry import DATASETS, dicts_in

from .classification import ClsDataset
from .coco_rules import CocoRules
from .files import image_fault
from .labels import BOTH, Fault, listed, no_sample
from .objects import read_counting
from .records import LIMIT, add_record, read_records, summary_of
from .rules import CheckedPipeline

DRAWS = 10  # a random crop may contain no object; then the same image is cropped again
REMEDY = '; correct it, or leave out what cannot be used: --cfg-options data_errors=skip'
EVALUATION = '; correct it: what validation and test leave out, they do not measure'


@DATASETS.register_module()
class CheckedDataset(Dataset):
    """A data set, from its config `dataset`, that checks every sample. The tools wrap all data sets of a run in it.

    `place` is its place in the config, `num_classes` the model's number of classes (None: the data set's). With
    `data_errors='raise'` an unusable sample is a DataError; unusable annotations raise it at construction. With 'skip'
    the next usable index replaces the sample. The replacement depends on the index alone, so that a resumed run has the
    same; mmengine's BaseDataset draws a random one. A skipped sample is recorded in a file in the folder `records`, so
    that the record outlives the worker. More than `max_data_errors` skipped samples, over all ranks, are a DataError.
    `size` is the side in pixels of the images that a classifier takes.

    All other attributes are those of the wrapped data set.
    """

    def __init__(self, dataset: dict, place: str = 'dataset', num_classes: int | None = None,
                 data_errors: str = 'raise', max_data_errors: int = LIMIT, records: str | None = None,
                 size: int | None = None):
        self.place, self.skips, self.limit = place, data_errors == 'skip', max_data_errors
        self.remedy = EVALUATION if place.startswith(('val', 'test')) else REMEDY
        self.folder, self.rank, self.recorded, self.num_classes = records, get_rank(), {}, num_classes
        self.size = size
        self.dataset = ROOT.build(dict(dataset, lazy_init=True) if _builds_base_dataset(dataset) else dataset)
        if isinstance(self.dataset, BaseDataset):
            steps = [node for _, node in dicts_in(dataset.get('pipeline'), 'pipeline')]
            self._read_annotations(self.dataset, steps)
            self.pipeline = self.dataset.pipeline
        self._require_samples(self.dataset)

    @property
    def pipeline(self):
        """The wrapped data set's pipeline. One that is set later, as by mmdet's PipelineSwitchHook, is checked too."""
        return self.dataset.pipeline

    @pipeline.setter
    def pipeline(self, pipeline) -> None:
        if isinstance(self.dataset, BaseDataset):
            pipeline = CheckedPipeline(self.dataset, self.num_classes, pipeline.transforms)
        self.dataset.pipeline = pipeline

    def _read_annotations(self, dataset: BaseDataset, steps: list[dict]) -> None:
        """Run `full_init`, and check COCO's annotations before mmdet drops some."""
        rules, lines = coco_rules(dataset, steps), []
        if hasattr(dataset, 'img_suffix'):
            dataset.load_data_list = listed(dataset)
        try:
            if rules is None:
                lines.append(read_counting(dataset))
            else:
                rules.read()
                lines += [*rules.warnings(), rules.absent()]
        except ConfigError as error:
            raise DataError(f'{self.place}: {error}') from error
        except Exception as error:  # JSON of any content raises anything
            if 'need at least one array' in str(error):  # mmengine found none
                raise DataError(f'{self.place}: {no_sample(dataset)}') from error
            name = dataset.ann_file or self.place
            raise DataError(f'{self.place}: {name} cannot be read: {one_line(error)}') from error
        finally:
            vars(dataset).pop('load_data_list', None)
        for line in filter(None, lines):
            print_log(f'{self.place}: {dataset.ann_file}: {line}', 'current', logging.WARNING)
        if rules is not None and rules.images and not self.skips:
            raise DataError(f'{self.place}: {rules.summary()}{self.remedy}')

    def _require_samples(self, dataset) -> None:
        if not len(dataset):
            raise DataError(f'{self.place}: {no_sample(dataset)}')
        if getattr(dataset, 'left_out', None):
            print_log(f'{self.place}: {dataset.left_out}', 'current', logging.WARNING)
        if isinstance(dataset, ClsDataset):
            wrong = dataset.kept[~np.isin(dataset.labels[dataset.kept], np.arange(len(dataset.classes)))]
            if len(wrong):
                raise DataError(f'{self.place}: {len(wrong)} samples have a label that is no class, first '
                                f'{dataset.name(wrong[0])}: {dataset.labels[wrong[0]]}; correct or remove them')

    def __len__(self) -> int:
        return len(self.dataset)

    def __getattr__(self, name: str):
        if name == 'dataset':  # not yet: while it is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __getitem__(self, index: int):
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        for candidate in range(index % len(self), index % len(self) + len(self)):
            at = candidate % len(self)
            try:
                return self._load(at)
            except MemoryError:
                raise
            except Exception as error:  # damaged files raise anything
                self._refuse(at, error)
        raise DataError(f'{self.place}: none of its {len(self)} samples can be used')

    def _load(self, index: int):
        if not isinstance(self.dataset, BaseDataset):
            return self._require_size(self.dataset[index])
        for _ in range(DRAWS):
            sample = self.dataset.prepare_data(index)
            if sample is not None:
                return sample
        raise ConfigError(f'its pipeline returned nothing, {DRAWS} times')

    def _require_size(self, sample: dict) -> dict:
        if self.size and isinstance(self.dataset, ClsDataset) and {*sample['inputs'].shape[-2:]} != {self.size}:
            height, width = sample['inputs'].shape[-2:]
            raise ConfigError(f'{self.dataset.name(sample["index"])} has {width} x {height} pixels after the pipeline, '
                              f'the model takes {self.size} x {self.size}: add steps that resize or crop to it')
        return sample

    def _refuse(self, index: int, error: Exception) -> None:
        """Record a sample that is skipped.

        Raises:
            DataError: samples must not be skipped, or too many are.
        """
        said = f'sample {index}: {self.describe(index, error)}'
        if not self.skips:
            raise DataError(f'{self.place}, {said}{self.remedy}') from error
        if index in self.recorded:
            return
        self.recorded[index] = dict(data=self.place, index=index, fault=f'{self.place}, {said}')
        records = list(self.recorded.values())
        if self.folder is not None:
            if (self.place, index) not in {(r['data'], r['index']) for r in read_records(self.folder)}:
                add_record(self.folder, self.rank, self.recorded[index])
            records = read_records(self.folder)
        if len(records) > self.limit:
            raise DataError(f'more than max_data_errors={self.limit} samples of the training data cannot be used: '
                            f'{summary_of(records)}')

    def describe(self, index: int, error: Exception) -> str:
        """Return the files of a sample and, after a colon, why it cannot be used, from the error that it raised."""
        if isinstance(self.dataset, BaseDataset):
            info = self.dataset.get_data_info(index)
            keys = error.keys if isinstance(error, Fault) else BOTH
            files = [info[key] for key in keys if info.get(key)]
            for path in files:
                if wrong := _local_fault(path):
                    return f'{path}: {wrong}'
            said = str(error) if isinstance(error, ConfigError) else one_line(error)
            return f'{" and ".join(files)}: {said}'
        return str(error) if isinstance(error, ConfigError) else one_line(error)


def _builds_base_dataset(settings: dict) -> bool:
    """Return whether a config builds a BaseDataset: only those replace samples at random."""
    with ROOT.switch_scope_and_registry(settings.get('_scope_')) as registry:
        name = settings['type']
        cls = registry.get(name) if isinstance(name, str) else name
    return isinstance(cls, type) and issubclass(cls, BaseDataset)


def coco_rules(dataset: BaseDataset, steps: list[dict]) -> CocoRules | None:
    """Return rules that read a data set as its pipeline's steps need it; None unless it reads its JSON as CocoDataset.

    LVIS' and panoptic ones do not.
    """
    stock = getattr(sys.modules.get('mmdet.datasets.coco'), 'CocoDataset', None)
    methods = ('load_data_list', 'parse_data_info')
    if stock is None or any(getattr(type(dataset), m, None) is not getattr(stock, m) for m in methods):
        return None
    return CocoRules(dataset, masks=any(step.get('with_mask') for step in steps),
                     polygons=any(step.get('poly2mask') is False for step in steps))


def _local_fault(path: str) -> str | None:
    """Return why a local file cannot be read as an image; None if it can, or if the file is remote (`s3://`)."""
    return None if '://' in path else image_fault(path)
