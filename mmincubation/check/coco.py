"""Check instance annotations in COCO's JSON, and the images that they name."""
import json
import os

from mmincubation.datasets.annotations import annotation_faults, is_lost_as_polygons, is_outside, repeated_ids
from mmincubation.datasets.files import image_fault, image_size

from .batches import loads_polygons
from .layouts import DatasetCheck, DatasetSummary, register_checker
from .sampling import files_below

FIX = 'correct or drop them in the JSON'
KEYS = dict(images={'id', 'file_name', 'width', 'height'}, annotations={'id', 'image_id'}, categories={'id', 'name'})


@register_checker('CocoDataset')
def report_coco(check: DatasetCheck) -> DatasetSummary:
    """Report problems of the JSON and of its images.

    All of the JSON is read, and each image must exist. Of the sampled images the header is read, with `full` all
    pixels.
    """
    options = check.options
    root = options.get('data_root') or ''
    path = os.path.join(root, options['ann_file'])
    folder = os.path.join(root, (options['data_prefix'] or {}).get('img') or '')
    content = _read(check, path)
    if content is None:
        return DatasetSummary(0, f'{path}: unreadable')
    entries = {kind: _complete(check, content[kind], kind) for kind in KEYS}
    images = _images(check, entries['images'], folder)
    _categories(check, entries['categories'])
    labelled = _annotations(check, entries['annotations'], {i['id']: i for i in entries['images']},
                            {c['id'] for c in entries['categories']})
    words = _look_at_images(check, images, folder)
    count = _kept(check, entries['images'], labelled)
    return DatasetSummary(count, f'{path}: {len(content["images"]):,} images ({count:,} used), '
                          f'{len(content["annotations"]):,} annotations, all read; image '
                          f'{"files" if check.sampling.full else "headers"}: {words}')


def _read(check: DatasetCheck, path: str) -> dict | None:
    try:
        with open(path, 'rb') as file:
            content = json.load(file)
        missing = {'images', 'annotations', 'categories'} - set(content)
    except (ValueError, TypeError) as error:
        check.problem(f'{path} is no JSON ({error})', 'download it again')
        return None
    if missing:
        check.problem(f'{path} has no {", ".join(sorted(missing))}', 'give an instances_*.json')
        return None
    return content


def _complete(check: DatasetCheck, entries: list, kind: str) -> list[dict]:
    """Return the entries that have all keys that every reader needs; report the others."""
    complete = []
    for index, entry in enumerate(entries):
        # The JSON may be anything: an entry need not be a dict.
        if isinstance(entry, dict) and not KEYS[kind] - entry.keys():
            complete.append(entry)
        else:
            missing = ', '.join(sorted(KEYS[kind] - (entry.keys() if isinstance(entry, dict) else set())))
            check.problem(f'{kind} without {missing}', 'complete or remove them', f'{kind}[{index}]')
    return complete


def _images(check: DatasetCheck, images: list[dict], folder: str) -> list[dict]:
    """Return the entries whose image file exists; report the others."""
    _duplicates(check, images, 'image')
    # One walk over the folder is faster than a look for each of 118,000 images.
    there, found = set(files_below(folder)), []
    for image in images:
        name = os.path.normpath(image['file_name'])
        if is_outside(name):
            check.problem('images outside of the data set\'s folder', f'copy them to {folder} and correct file_name',
                          f'image {image["id"]}: {image["file_name"]}')
        elif name in there:
            found.append(image)
        else:
            check.problem('images in the JSON without a file', f'copy them to {folder}, or correct data_prefix',
                          f'image {image["id"]}: {image["file_name"]}')
    return found


def _duplicates(check: DatasetCheck, entries: list[dict], kind: str) -> None:
    for key in repeated_ids(entries):
        check.problem(f'{kind} ids that occur more than once', 'give every entry its own id', f'{kind} {key}')


def _categories(check: DatasetCheck, categories: list[dict]) -> None:
    _duplicates(check, categories, 'category')
    wanted = check.classes
    if wanted is None:
        return
    # mmdet finds categories by name, so their order does not matter.
    names = {category['name'] for category in categories}
    for name in wanted:
        if name not in names:
            check.problem('classes that the JSON has no category for', 'set metainfo.classes to the names in the JSON',
                          name)


def _annotations(check: DatasetCheck, annotations: list[dict], images: dict, categories: set) -> set:
    """Report wrong annotations; return the ids of images with an annotation."""
    _duplicates(check, annotations, 'annotation')
    polygons = loads_polygons(dict(dataset=check.dataset))
    for annotation in annotations:
        image = images.get(annotation.get('image_id'))
        name = f'annotation {annotation.get("id")} of image {annotation.get("image_id")}'
        for what in annotation_faults(annotation, image, categories):
            check.problem(what, FIX, name)
        if polygons and is_lost_as_polygons(annotation):
            check.problem('objects as run lengths, which poly2mask=False leaves out',
                          'set poly2mask=True in LoadAnnotations', name)
    return {annotation.get('image_id') for annotation in annotations}


def _look_at_images(check: DatasetCheck, images: list[dict], folder: str) -> str:
    """Report images whose size differs from the JSON's or that cannot be read; return how many were sampled."""

    def inspect(image: dict):
        path = os.path.join(folder, image['file_name'])
        wrong = image_fault(path) if check.sampling.full else None
        return wrong or image_size(path)

    seen, words = check.sampling.inspect(images, inspect)
    for image, found in seen:
        name = f'image {image["id"]}: {image["file_name"]}'
        if isinstance(found, str):
            check.problem(f'{found}s', 'copy or download them again', name)
        elif found != (image['width'], image['height']):
            check.problem('images of another size than the JSON says', 'take the file that belongs to the JSON',
                          f'{name} is {found[0]}x{found[1]}, JSON {image["width"]}x{image["height"]}')
    return words


def _kept(check: DatasetCheck, images: list[dict], labelled: set) -> int:
    """Return the number of images after mmdet's filter_cfg, which filters in training only."""
    rule = check.options.get('filter_cfg') or {}
    if check.options.get('test_mode'):
        return len(images)
    # The same two rules as CocoDataset.filter_data.
    small = rule.get('min_size', 0)
    return sum(min(i['width'], i['height']) >= small and (i['id'] in labelled or not rule.get('filter_empty_gt'))
               for i in images)
