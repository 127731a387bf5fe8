"""Check images for classification, in folders of classes or Arrow folders, as the run itself reads them."""
import numpy as np

from mmincubation.datasets.checked import CheckedDataset
from mmincubation.datasets.classes import class_of
from mmincubation.datasets.classification import ClsDataset
from mmincubation.datasets.images import image_transform
from mmincubation.errors import DataError

from .layouts import DatasetCheck, DatasetSummary, register_checker

TRIED = 8  # images that pass the whole pipeline


@register_checker('ImageFolder', 'HFImages')
def report_classification(check: DatasetCheck) -> DatasetSummary:
    """Report labels that are no class, and images that cannot be decoded; count the images of each class."""
    settings = {key: value for key, value in check.dataset.items() if key not in ('type', 'pipeline', '_scope_')}
    data = class_of(check.dataset, check.scope)(**settings)
    if getattr(data, 'left_out', None):
        check.report.warn(f'{check.place}: {data.left_out}')
    valid = (data.labels >= 0) & (data.labels < len(data.classes))
    for index in np.flatnonzero(~valid):
        check.problem('labels that are no class', 'take a split with labels (the public test split has none)',
                      f'{data.name(index)}: {data.labels[index]}')

    def fault(index: int) -> str | None:
        try:
            data.read(index)
        except Exception as error:  # damaged images raise anything
            return str(error).partition(data.name(index))[0].strip(" '") or type(error).__name__
        return None

    seen, words = check.sampling.inspect(data.kept, fault)
    unread = [f'{data.name(index)}: {wrong}' for index, wrong in seen if wrong]
    for example in unread:
        check.problem('images that cannot be read', 'copy or write them again', example)
    if not unread and valid.all():
        _try_pipeline(check, data)
    part = '' if len(data) == len(data.labels) else f' ({len(data):,} used)'
    counts = np.bincount(data.labels[data.kept[valid[data.kept]]], minlength=len(data.classes))
    return DatasetSummary(data, f'{data.root}: {len(data.labels):,} images{part} in {len(data.classes):,} classes; '
                          f'decoded {words}', dict(zip(data.classes, counts.tolist(), strict=True)))


def _try_pipeline(check: DatasetCheck, data: ClsDataset) -> None:
    """Report what the run would refuse in what the pipeline makes of some images."""
    try:
        data.transform = image_transform(check.dataset.get('pipeline') or [])
    except Exception:  # its steps cannot be built, which is a problem of the config
        return
    checked = CheckedDataset(dict(type=lambda: data), check.place, check.num_classes, size=check.size)
    try:
        for index in range(0, len(data), max(1, len(data) // TRIED)):
            checked[index]
    except DataError as error:
        check.problem(str(error).removeprefix(f'{check.place}, ').removesuffix(checked.remedy), '')
