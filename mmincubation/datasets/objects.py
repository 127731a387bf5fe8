"""Count the objects of each class in data sets whose files have no rules of their own, as those of XML."""
from collections import Counter

from mmengine.dataset import BaseDataset

from mmincubation.errors import ConfigError

from .coco import in_one_line
from .coco_rules import absent, all_filtered


def read_counting(dataset: BaseDataset) -> str | None:
    """Run a data set's `full_init`; return in words which of its classes have no object.

    Readers of XML leave out objects of other names than those in `metainfo.classes`, and say nothing. None: all have
    one, or that is not known, as of test data without labels and of data without objects.

    Raises:
        ConfigError: `filter_cfg` leaves no image.
    """
    filter_data, left = dataset.filter_data, []

    def filtered() -> list[dict]:
        infos = dataset.data_list
        left.extend(kept := filter_data())
        if not kept and infos and dataset.filter_cfg and all({'width', 'instances'} <= info.keys() for info in infos):
            raise ConfigError(in_one_line([all_filtered(dataset.filter_cfg, infos)]))
        return kept

    dataset.filter_data = filtered
    try:
        dataset.full_init()
    finally:
        vars(dataset).pop('filter_data', None)
    return _absent(dataset, left)


def _absent(dataset: BaseDataset, infos: list[dict]) -> str | None:
    classes = dataset.metainfo.get('classes') or ()
    if not any('instances' in info for info in infos) or not isinstance(classes, list | tuple):
        return None
    counts = Counter(instance.get('bbox_label') for info in infos for instance in info.get('instances') or ()
                     if not instance.get('ignore_flag'))
    things = dataset.metainfo.get('thing_classes') or classes  # panoptic ones, which come first
    empty = [name for number, name in enumerate(things) if not counts[number]]
    if not empty or dataset.test_mode and not counts:
        return None
    return absent(empty, len(things), 'objects that are ignored')
