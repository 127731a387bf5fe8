"""Class names of data sets and checkpoints: numbers are compared by the names that they stand for."""
from __future__ import annotations

from mmengine.dataset import BaseDataset
from mmengine.registry import DATASETS as ROOT
from mmengine.registry import DefaultScope

from .classification import ClsDataset

Names = tuple[str, ...]


def class_of(dataset: dict, scope: str | None = None):
    """Return what a config's `type` names, under the default scope `scope` (None: the current one)."""
    if not isinstance(dataset['type'], str):
        return dataset['type']
    with ROOT.switch_scope_and_registry(dataset.get('_scope_') or scope) as registry:
        return registry.get(dataset['type'])


def names_of(dataset: dict, scope: str) -> Names | None:
    """Return the class names of a data set from its config; of its files only what names the classes is read.

    None if it has no names, or cannot be built: the run's own building says why.
    """
    try:
        cls = class_of(dataset, scope)
        if issubclass(cls, ClsDataset):
            return cls.names(dataset)
        if not issubclass(cls, BaseDataset):
            return None
        with DefaultScope.overwrite_default_scope(scope):
            found = ROOT.build(dict(dataset, lazy_init=True, pipeline=[])).metainfo.get('classes')
    except Exception:  # a config of any content
        return None
    return tuple(found) if isinstance(found, list | tuple) else None


def is_numbered_anew(dataset: dict, scope: str) -> bool:
    """Return whether a data set takes `classes`, names in the order in which it shall number them."""
    try:
        return issubclass(class_of(dataset, scope), ClsDataset)
    except (TypeError, KeyError, ImportError):
        return False


def numbered(dataset: dict, names: Names | None, scope: str) -> dict:
    """Return the config of a data set with `names` as the classes of all inside it that take an order of classes."""
    if isinstance(dataset.get('dataset'), dict):
        return dict(dataset, dataset=numbered(dataset['dataset'], names, scope))
    if isinstance(dataset.get('datasets'), list | tuple):
        return dict(dataset, datasets=[numbered(inner, names, scope) for inner in dataset['datasets']])
    anew = names and is_numbered_anew(dataset, scope) and names_of(dataset, scope) != names
    return dict(dataset, classes=names) if anew else dataset


def difference(names: Names, known: Names, source: str, numbered_anew: bool) -> str | None:
    """Return in words the first class of a data set that differs from the `known` ones of `source`; None if none does.

    With `numbered_anew` the order does not matter, and classes may be missing.
    """
    if numbered_anew:
        strange = [name for name in names if name not in known]
        return strange and (f'{len(strange)} of its {len(names)} classes are none of the {len(known)} of {source}, '
                            f'first {strange[0]!r}; name them as there') or None
    for i in range(max(len(names), len(known))):
        here, there = ((repr(side[i]) if i < len(side) else 'missing') for side in (names, known))
        if here != there:
            return f'class {i} is {here}, in {source} it is {there}; give the same classes in the same order'
    return None


def names_in(content: dict, header: dict | None = None) -> Names | None:
    """Return the class names that a checkpoint's content, or the header of our weights, holds; None without any."""
    meta = content.get('meta') if isinstance(content.get('meta'), dict) else {}
    names = meta.get('dataset_meta') if isinstance(meta.get('dataset_meta'), dict) else meta
    # CLASSES is what the MM packages wrote until 2022.
    found = names.get('classes') or names.get('CLASSES') or (header or {}).get('classes')
    return tuple(found) if isinstance(found, list | tuple) and all(isinstance(name, str) for name in found) else None
