"""A split that Hugging Face `datasets` wrote to disk: ImageNet or CIFAR-100 through `mmincubation.HFImages`."""
import numpy as np

from .folders import compare_count
from .layouts import Given, Seen, checks


@checks('HFImages')
def check_hf(given: Given) -> Seen:
    """Number of classes, classes without an image, labels out of range, and rows that cannot be decoded."""
    from mmincubation.datasets.classification import HFImages
    options = given.options
    split = HFImages(options['root'], fraction=options['fraction'], image=options['image'], label=options['label'])
    compare_count(given, len(split.classes), f'classes in {options["root"]}')
    counts = np.bincount(np.clip(split.labels, 0, None), minlength=len(split.classes))
    for label in np.flatnonzero(counts[:len(split.classes)] == 0):
        given.problem('classes without an image', 'write the split again', split.classes[label])
    for row in np.flatnonzero((split.labels < 0) | (split.labels >= len(split.classes))):
        given.problem('labels that are no class', 'take a split with labels (the public test split has none)',
                      f'row {row}: {split.labels[row]}')

    def fault(index: int) -> str | None:
        try:
            split.read(index)
        except Exception as error:  # damaged images raise anything
            return type(error).__name__
        return None

    seen, words = given.look.at(split.kept, fault)
    for row, wrong in seen:
        if wrong:
            given.problem('images that cannot be decoded', 'write the split again', f'row {row}: {wrong}')
    return Seen(len(split), f'{options["root"]}: {len(split):,} images in {len(split.classes):,} classes; '
                f'decoded {words}', split.classes)
