"""Read COCO's JSON: find the faults that no single image has, and find categories by name."""
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache

from mmincubation.errors import ConfigError

from .annotations import repeated_ids

KEYS = dict(images=('id', 'file_name', 'width', 'height'), annotations=('id', 'image_id', 'category_id'),
            categories=('id', 'name'))
SHOWN = 3
Fault = tuple[str, str, str]  # what is wrong, the remedy, and where it was seen


def first(items: Iterable, separator: str = ', ') -> str:
    """Return the first three of the items as text, with `...` for more."""
    items = list(items)
    return separator.join(map(str, items[:SHOWN])) + (f'{separator}...' if len(items) > SHOWN else '')


def in_one_line(faults: list[Fault]) -> str:
    """Return the first kind of fault with how often it occurs, where first, and the remedy."""
    what, remedy, _ = faults[0]
    seen = [where for kind, _, where in faults if kind == what and where]
    return f'{what}{f" ({len(seen)}: {first(seen)})" if seen else ""}; {remedy}'


def class_ids(categories: list[dict], classes: Iterable[str]) -> list:
    """Return the category id of each class, in the order of the classes; mmdet's own come in the order of the file.

    Raises:
        ConfigError: `classes` is a text, a class has no category, or a name occurs twice.
    """
    if faults := list(class_faults(categories, classes)):
        raise ConfigError(in_one_line(faults))
    ids = {category['name']: category['id'] for category in categories}
    return [ids[name] for name in classes]


def class_faults(categories: list[dict], classes: Iterable[str]) -> Iterator[Fault]:
    """Yield why classes cannot be found by name among the categories."""
    if isinstance(classes, str):
        yield f'metainfo.classes={classes!r} is a text', f'write a tuple, ({classes!r}, )', ''
        return
    known = Counter(category['name'] for category in categories)
    for name in classes:
        if not known[name]:
            yield ('classes that the JSON has no category for', 'set metainfo.classes to the names in the JSON, '
                   f'{first(map(repr, known))}', repr(name))
        elif known[name] > 1:
            yield 'categories of one name', 'give each its own, or join them', repr(name)
    for name, count in Counter(classes).items():
        if count > 1:
            yield 'names that occur more than once in metainfo.classes', 'name each class once', repr(name)


def file_faults(content, classes: Iterable[str]) -> Iterator[Fault]:
    """Yield what makes a whole file unusable; `content` is its parsed JSON. One without `annotations` is unlabelled."""
    if lost := missing_lists(content):
        yield f'the JSON has no {", ".join(lost)}', 'give an instances_*.json', ''
        return
    entries = [(kind, i, entry) for kind in KEYS for i, entry in enumerate(content.get(kind) or ())]
    faults = [fault for entry in entries for fault in _entry_faults(*entry)]
    yield from faults
    if faults:  # the rest reads the keys
        return
    for key in repeated_ids(content['categories']):
        yield 'category ids that occur more than once', 'give every category its own id', f'category {key}'
    yield from class_faults(content['categories'], classes)
    known = {image['id'] for image in content['images']}
    orphans = [entry for entry in content.get('annotations') or () if entry['image_id'] not in known]
    for key in repeated_ids(content['images']) if orphans else ():  # else the fault of these images alone
        yield 'image ids that occur more than once', 'give every image its own id', f'image {key}'
    for entry in orphans:
        yield ('annotations of an image that is not in the JSON', 'correct or drop them in the JSON',
               f'annotation {entry["id"]!r} of image {entry["image_id"]!r}')


def missing_lists(content) -> list[str]:
    """Return which of the lists that every reader needs are not there."""
    content = content if isinstance(content, dict) else {}
    return [kind for kind in ('images', 'categories') if not isinstance(content.get(kind), list)]


def _entry_faults(kind: str, index: int, entry) -> Iterator[Fault]:
    missing = [key for key in sorted(KEYS[kind]) if not isinstance(entry, dict) or key not in entry]
    if missing:
        yield f'{kind} without {", ".join(missing)}', 'complete or remove them', f'{kind}[{index}]'
    elif any(isinstance(entry[key], list | dict) or entry[key] is None and key != 'category_id'
             for key in KEYS[kind] if key.endswith('id')):
        yield f'{kind} whose id is neither a number nor a text', 'correct them', f'{kind}[{index}]'
    elif kind == 'images':
        sides = entry['width'], entry['height']
        if not all(isinstance(side, int | float) and side > 0 for side in sides):
            yield 'images whose width or height is no number above 0', 'correct them', f'image {entry["id"]}: {sides}'
        if not isinstance(entry['file_name'], str):
            yield 'images whose file_name is no text', 'correct them', f'image {entry["id"]}'


@cache
def coco_class() -> type:
    """Create a class on its first use, so that mmdet is imported only for data in COCO's format."""
    from mmdet.datasets.api_wrappers import COCO

    class NamedCoco(COCO):
        """mmdet's COCO, from a file or its content, whose `get_cat_ids` follows the names that it is given."""

        def __init__(self, source: str | dict | None = None):
            super().__init__()
            self.path = os.fspath(source) if isinstance(source, str | os.PathLike) else ''
            if source is not None:
                self.dataset = read_json(self.path) if self.path else source
                self.createIndex()
                self.img_ann_map, self.cat_img_map = self.imgToAnns, self.catToImgs

        def get_cat_ids(self, cat_names=(), sup_names=(), cat_ids=()) -> list:
            """Return the ids of the categories of these names, in this order."""
            if len(cat_names) and not len(sup_names) and not len(cat_ids):
                return class_ids(self.dataset['categories'], cat_names)
            return super().get_cat_ids(cat_names, sup_names, cat_ids)

    return NamedCoco


def read_json(path: str):
    """Return the content of a JSON file in any encoding that JSON may have."""
    with open(path, 'rb') as file:
        return json.loads(file.read())
