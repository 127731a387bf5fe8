"""Classes of the data sets against each other, the model's heads and the checkpoint of a test."""
from collections.abc import Iterator

from mmengine.config import Config

from mmincubation.datasets.classes import (
    Names,
    difference,
    is_numbered_anew,
    names_in,
    names_of,
)
from mmincubation.errors import ConfigError
from mmincubation.registry import dicts_in, leaf_datasets
from mmincubation.vit import Arch

from .sections import kinds_of
from .signatures import setting

# The parts of a model in which `num_classes` is the number of the data's classes; an RPN's is 1.
HEADS = {'decode_head', 'auxiliary_head', 'bbox_head', 'mask_head', 'mask_iou_head', 'point_head', 'panoptic_head'}


def class_problems(cfg: Config, mode: str, known: tuple[Names, str] | None = None) -> Iterator[str]:
    """Data sets that number other classes than the `known` ones, and heads of another number of classes.

    `known` holds names and where they are from; without it they are those of the training data, where these are there.
    A data set that can be numbered anew gets the known numbers by `wrap_datasets`, so only unknown names are wrong.
    """
    scope = cfg.get('default_scope') or 'mmengine'
    known = known or training_names(cfg)
    kinds = kinds_of(cfg, mode)
    for place, dataset in (leaf for kind in kinds for leaf in data_sets(cfg, kind)):
        names = names_of(dataset, scope)
        known = known or names and (names, place)  # of a test without training data the test's own
        if names and (what := difference(names, *known, is_numbered_anew(dataset, scope))):
            yield f'{place}: {what}'
    if known:
        yield from count_problems(cfg, *known, scope)


def count_problems(cfg: Config, names: Names, source: str, scope: str) -> Iterator[str]:
    """Heads of another number of classes than the names of `source`."""
    if 'semantic_head' in cfg.model:  # panoptic: the box head knows the things alone
        return
    for place, count in class_counts(cfg.model, scope):
        if count != len(names):
            yield f'{source}: {len(names)} classes, but {place} is {count}; make them equal'
    if 'arch' in cfg.model and len(names) == 1:
        yield f'{source}: {names[0]!r} is the only class, so every image would be right; give each class a folder'


def data_sets(cfg: Config, kind: str) -> Iterator[tuple[str, dict]]:
    """Yield (place, config) of the data sets of a dataloader, `train`, `val` or `test`, that read files."""
    loader = cfg.get(f'{kind}_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, dict) else None  # of another kind: its own problem
    return leaf_datasets(dataset if isinstance(dataset, dict) else {}, f'{kind}_dataloader.dataset')


def training_names(cfg: Config) -> tuple[Names, str] | None:
    """Return the class names of the training data and its place in the config; None if they are not known here."""
    scope = cfg.get('default_scope') or 'mmengine'
    found = ((names_of(dataset, scope), place) for place, dataset in data_sets(cfg, 'train'))
    return next((pair for pair in found if pair[0]), None)


def names_for_test(cfg: Config, checkpoint: str, content: dict, header: dict) -> tuple[Names, str] | None:
    """Return the class names that a checkpoint was trained with, and where they are from; None if nothing has them.

    `content` and `header` are what `read_tensors` returns of it.

    Raises:
        ConfigError: the test data or the model have other classes.
    """
    names = names_in(content, header)
    known = (names, checkpoint) if names else training_names(cfg)
    if found := [*class_problems(cfg, 'test', known)]:
        raise ConfigError('\n'.join(found))
    return known


def class_counts(model: dict, scope: str) -> Iterator[tuple[str, int]]:
    """Yield (place, number of classes) of each part of a model that has one, the deciding part first."""
    if 'arch' in model:
        yield 'model.arch.num_classes', Arch.parse(model['arch']).num_classes
    for place, node in sorted(dicts_in(model, 'model'), key=lambda found: 'auxiliary_head' in found[0]):
        parts = place.split('.')
        last = next((part for part in reversed(parts) if not part.isdigit()), '')
        if last not in HEADS and not ('arch' in model and last == 'mixup') or 'rpn_head' in parts:
            continue
        things, stuff = (node.get(f'num_{kind}_classes') for kind in ('things', 'stuff'))
        count = setting(node, 'num_classes', scope) if things is None else things + (stuff or 0)
        if isinstance(count, int):
            yield f'{place}.num_classes' if things is None else f'{place}.num_things_classes + num_stuff_classes', count
