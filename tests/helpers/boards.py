"""Made-up results of a whole suite: six methods of classification, a detector and a segmentation."""
import math
from pathlib import Path

from tests.helpers.results import draw, phase, put

# Method -> its phases: name, images, first and last top-1; the last phase ends at the method's result.
HYBRIDS = [('module_0', 6000, 20., 70.), ('module_1', 6000, 30., 74.), ('module_2', 6000, 35., 77.),
           ('module_3', 6000, 40., 80.)]
METHODS = {
    'e2e': [('train', 40_000, 12., 66.2)],
    'incub': [('meta', 12_000, 15., 88.), *HYBRIDS, ('assembled', 0, 31., 31.), ('finetune', 12_000, 55., 86.3)],
    'incub_grow': [('meta', 12_000, 15., 88.), *HYBRIDS, ('assembled', 0, 47., 47.), ('finetune', 12_000, 60., 92.1)],
    'grow_only': [('meta', 12_000, 15., 88.), ('assembled', 0, 62., 62.), ('finetune', 30_000, 70., 89.9)],
    'meta_only': [('train', 90_000, 15., 97.1)],
    'stack_only': [('meta', 12_000, 15., 88.), ('assembled', 0, 58., 58.), ('finetune', 30_000, 66., 88.4)],
}


def made_phase(name: str, images: int, first: float, last: float, blocks: int, points: int = 10) -> dict:
    """One phase whose curve rises from `first` to `last`; one point if it trains nothing."""
    shares = [i / points for i in range(1, points + 1)] if images else [1]
    rise = 1 - math.exp(-4)
    curve = [(round(images * at), first + (last - first) * (1 - math.exp(-4 * at)) / rise) for at in shares]
    return phase(name, images, last, blocks, images / 100, curve)


def put_method(folder: Path, method: str, phases: list[tuple], seed: int = 0, shift: float = 0., **changes) -> Path:
    """Write the result of one method; `shift` is added to its last value."""
    small = ('meta', 'train') if method == 'meta_only' else ('meta', )
    made = [made_phase(name, images, first, min(last + shift, 100.), 4 if name in small else 16)
            for name, images, first, last in phases]
    return put(folder, method, min(phases[-1][-1] + shift, 100.), seed=seed, phases=made, **changes)


def put_suite(folder: Path) -> None:
    """Write the results of a whole suite below `folder`."""
    for method, phases in METHODS.items():
        for seed, shift in enumerate((0., 1.4, -.8)[:1 if method == 'stack_only' else 3]):
            put_method(folder, method, phases, seed, shift * (3 if method == 'e2e' else 1))
    by_class = {name: 20. + 3 * i for i, name in enumerate(('circle', 'square', 'triangle', 'star', 'cross'))}
    for method, value in dict(incub=0.431, e2e=0.405, scratch=0.204).items():
        path = put(folder, method, value, 'detection', pictures=['vis_image/0.png', 'vis_image/1.png'],
                   weights=dict(path='w', sha256='1234abcd' * 8, coverage='150/150 keys'),
                   details={'box AP by class': by_class, 'mask AP by class': by_class})
        draw(path)
        draw(path, 'vis_image/1.png')
    put(folder, 'incub', 45.2, 'segmentation', details={'IoU by class': {f'class {i}': 30. + i for i in range(40)}})
