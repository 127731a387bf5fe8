"""CIFAR-100 as torchvision unpacks it."""
from pathlib import Path

from .folders import compare_count
from .layouts import Given, Seen, checks

IMAGES = dict(train=50_000, test=10_000)


@checks('CIFAR100', 'Cifar100')
def check_cifar100(given: Given) -> Seen:
    """Each file is there and has torchvision's MD5."""
    from torchvision.datasets import CIFAR100
    from torchvision.datasets.utils import check_md5
    root = Path(given.options['root'])
    folder = root / CIFAR100.base_folder
    files = [*CIFAR100.train_list, *CIFAR100.test_list, (CIFAR100.meta['filename'], CIFAR100.meta['md5'])]
    for name, md5 in files:
        path = folder / name
        if not path.is_file():
            given.problem('missing files', f'unpack cifar-100-python.tar.gz into {root} (docs/data.md)', str(path))
        elif not check_md5(path, md5):
            given.problem('files with another MD5 than the public ones', 'unpack the archive again', str(path))
    compare_count(given, 100, 'classes in CIFAR-100')
    split = 'train' if given.options.get('train', given.options.get('split') in (None, 'train')) else 'test'
    return Seen(IMAGES[split], f'{folder}: {IMAGES[split]:,} images ({split}); MD5 of all {len(files)} files',
                tuple(map(str, range(100))))
