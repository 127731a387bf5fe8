"""Check a split that Hugging Face `datasets` wrote to disk, as `mmincubation.HFImages` reads it."""
import numpy as np

from .folders import compare_count
from .layouts import DatasetCheck, DatasetSummary, register_checker


@register_checker('HFImages')
def report_hf(check: DatasetCheck) -> DatasetSummary:
    """Report a wrong number of classes, empty classes, labels out of range, and rows that cannot be decoded."""
    from mmincubation.datasets.classification import HFImages
    options = check.options
    split = HFImages(options['root'], fraction=options['fraction'], image=options['image'], label=options['label'])
    compare_count(check, len(split.classes), f'classes in {options["root"]}')
    counts = np.bincount(np.clip(split.labels, 0, None), minlength=len(split.classes))
    for label in np.flatnonzero(counts[:len(split.classes)] == 0):
        check.problem('classes without an image', 'write the split again', split.classes[label])
    for row in np.flatnonzero((split.labels < 0) | (split.labels >= len(split.classes))):
        check.problem('labels that are no class', 'take a split with labels (the public test split has none)',
                      f'row {row}: {split.labels[row]}')

    def fault(index: int) -> str | None:
        try:
            split.read(index)
        except Exception as error:  # damaged images raise anything
            return type(error).__name__
        return None

    seen, words = check.sampling.inspect(split.kept, fault)
    for row, wrong in seen:
        if wrong:
            check.problem('images that cannot be decoded', 'write the split again', f'row {row}: {wrong}')
    return DatasetSummary(len(split), f'{options["root"]}: {len(split):,} images in {len(split.classes):,} classes; '
                          f'decoded {words}', split.classes)
