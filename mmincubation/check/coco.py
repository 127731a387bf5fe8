"""Instance annotations in COCO's JSON, and the images that they name."""
import json
import os

from mmincubation.datasets.annotations import annotation_faults, is_lost_as_polygons, is_outside, repeated_ids
from mmincubation.datasets.files import image_fault, image_size

from .batches import loads_polygons
from .folders import compare_count
from .layouts import Given, Seen, checks
from .sampling import files_below

FIX = 'correct or drop them in the JSON'
KEYS = dict(images={'id', 'file_name', 'width', 'height'}, annotations={'id', 'image_id'}, categories={'id', 'name'})


@checks('CocoDataset')
def check_coco(given: Given) -> Seen:
    """Everything in the JSON, existence of every image, and header or (full) all pixels of those looked at."""
    options = given.options
    root = options.get('data_root') or ''
    path = os.path.join(root, options['ann_file'])
    folder = os.path.join(root, (options['data_prefix'] or {}).get('img') or '')
    content = _read(given, path)
    if content is None:
        return Seen(0, f'{path}: unreadable')
    entries = {kind: _complete(given, content[kind], kind) for kind in KEYS}
    images = _images(given, entries['images'], folder)
    _categories(given, entries['categories'])
    labelled = _annotations(given, entries['annotations'], {i['id']: i for i in entries['images']},
                            {c['id'] for c in entries['categories']})
    words = _look_at_images(given, images, folder)
    count = _kept(given, entries['images'], labelled)
    return Seen(count, f'{path}: {len(content["images"]):,} images ({count:,} used), {len(content["annotations"]):,} '
                f'annotations, all read; image {"files" if given.look.full else "headers"}: {words}')


def _read(given: Given, path: str) -> dict | None:
    try:
        with open(path, 'rb') as file:
            content = json.load(file)
        missing = {'images', 'annotations', 'categories'} - set(content)
    except (ValueError, TypeError) as error:
        given.problem(f'{path} is no JSON ({error})', 'download it again')
        return None
    if missing:
        given.problem(f'{path} has no {", ".join(sorted(missing))}', 'give an instances_*.json')
        return None
    return content


def _complete(given: Given, entries: list, kind: str) -> list[dict]:
    """Those with all keys that every reader needs."""
    complete = []
    for index, entry in enumerate(entries):
        if isinstance(entry, dict) and not KEYS[kind] - entry.keys():
            complete.append(entry)
        else:
            missing = ', '.join(sorted(KEYS[kind] - (entry.keys() if isinstance(entry, dict) else set())))
            given.problem(f'{kind} without {missing}', 'complete or remove them', f'{kind}[{index}]')
    return complete


def _images(given: Given, images: list[dict], folder: str) -> list[dict]:
    """The entries whose file exists."""
    _duplicates(given, images, 'image')
    there, found = set(files_below(folder)), []
    for image in images:
        name = os.path.normpath(image['file_name'])
        if is_outside(name):
            given.problem('images outside of the data set\'s folder', f'copy them to {folder} and correct file_name',
                          f'image {image["id"]}: {image["file_name"]}')
        elif name in there:
            found.append(image)
        else:
            given.problem('images in the JSON without a file', f'copy them to {folder}, or correct data_prefix',
                          f'image {image["id"]}: {image["file_name"]}')
    return found


def _duplicates(given: Given, entries: list[dict], kind: str) -> None:
    for key in repeated_ids(entries):
        given.problem(f'{kind} ids that occur more than once', 'give every entry its own id', f'{kind} {key}')


def _categories(given: Given, categories: list[dict]) -> None:
    _duplicates(given, categories, 'category')
    wanted = given.classes
    if wanted is None:
        return
    compare_count(given, len(wanted), 'classes of the data set')
    names = {category['name'] for category in categories}
    for name in wanted:
        if name not in names:
            given.problem('classes that the JSON has no category for', 'set metainfo.classes to the names in the JSON',
                          name)


def _annotations(given: Given, annotations: list[dict], images: dict, categories: set) -> set:
    """Report what is wrong; returns the ids of images with an annotation."""
    _duplicates(given, annotations, 'annotation')
    polygons = loads_polygons(dict(dataset=given.dataset))
    for annotation in annotations:
        image = images.get(annotation.get('image_id'))
        name = f'annotation {annotation.get("id")} of image {annotation.get("image_id")}'
        for what in annotation_faults(annotation, image, categories):
            given.problem(what, FIX, name)
        if polygons and is_lost_as_polygons(annotation):
            given.problem('objects as run lengths, which poly2mask=False leaves out',
                          'set poly2mask=True in LoadAnnotations', name)
    return {annotation.get('image_id') for annotation in annotations}


def _look_at_images(given: Given, images: list[dict], folder: str) -> str:
    """Size in the JSON against the file's; with `full` every pixel is decoded."""

    def inspect(image: dict):
        path = os.path.join(folder, image['file_name'])
        wrong = image_fault(path) if given.look.full else None
        return wrong or image_size(path)

    seen, words = given.look.at(images, inspect)
    for image, found in seen:
        name = f'image {image["id"]}: {image["file_name"]}'
        if isinstance(found, str):
            given.problem(f'{found}s', 'copy or download them again', name)
        elif found != (image['width'], image['height']):
            given.problem('images of another size than the JSON says', 'take the file that belongs to the JSON',
                          f'{name} is {found[0]}x{found[1]}, JSON {image["width"]}x{image["height"]}')
    return words


def _kept(given: Given, images: list[dict], labelled: set) -> int:
    """Images left after mmdet's filter_cfg, which filters in training alone."""
    rule = given.options.get('filter_cfg') or {}
    if given.options.get('test_mode'):
        return len(images)
    small = rule.get('min_size', 0)
    return sum(min(i['width'], i['height']) >= small and (i['id'] in labelled or not rule.get('filter_empty_gt'))
               for i in images)
