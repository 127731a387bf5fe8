"""Check instance annotations in COCO's JSON, read by the data set's own code, and the images that they name."""
import os

from mmengine.registry import DATASETS

from mmincubation.datasets.annotations import is_outside
from mmincubation.datasets.checked import coco_rules
from mmincubation.datasets.coco_rules import CocoRules
from mmincubation.datasets.files import image_fault, image_size, missing, turned_in_place
from mmincubation.errors import ConfigError
from mmincubation.registry import dicts_in

from .layouts import DatasetCheck, DatasetSummary, register_checker
from .sampling import files_below


@register_checker('CocoDataset')
def report_coco(check: DatasetCheck) -> DatasetSummary | None:
    """Report what training would find in the JSON, and problems of its images; None if the JSON cannot be used.

    All of the JSON is read, and each image that the data set gives must exist. Of the sampled images the header is
    read, with `full` all pixels.
    """
    rules = _rules(check)
    dataset, path = rules.dataset, rules.dataset.ann_file
    refused = None
    try:
        rules.read()
    except ConfigError as error:
        refused = error
    except ValueError as error:
        check.problem(f'{path} is no JSON ({error})', 'download it again')
        check.report.say(f'{check.place}: {path}: unreadable')
        return None
    for what, remedy, where in rules.found:
        check.problem(what, remedy, where or None)
    if refused is not None:
        check.report.say(f'{check.place}: {path}: cannot be used')
        return None
    absent = None if check.place.startswith('train') else rules.absent()  # of train, the sum over its parts counts
    for line in filter(None, [*rules.warnings(), absent]):
        check.report.warn(f'{check.place}: {line}')
    folder = dataset.data_prefix.get('img') or ''
    infos = [info for info in dataset.data_list if not is_outside(os.path.abspath(info['img_path']), folder)]
    words = _look_at_images(check, _found(check, infos, folder))
    # A fault of an image takes its objects away, so that a class may seem to have none.
    objects = None if rules.images else {name: rules.objects[name] for name in dataset.metainfo['classes']}
    return DatasetSummary(dataset, f'{path}: {rules.total:,} images ({len(dataset):,} used), {rules.seen:,} '
                          f'annotations, all read; image {"files" if check.sampling.full else "headers"}: {words}',
                          objects)


def _rules(check: DatasetCheck) -> CocoRules:
    """Build the data set, not yet read."""
    settings = dict(check.dataset, lazy_init=True, serialize_data=False)
    dataset = DATASETS.build(dict(settings, _scope_=check.dataset.get('_scope_') or check.scope))
    steps = [node for _, node in dicts_in(check.dataset.get('pipeline'), 'pipeline')]
    return coco_rules(dataset, steps)


def _found(check: DatasetCheck, infos: list[dict], folder: str) -> list[dict]:
    """Return the infos whose image file exists; report the others."""
    # One walk over the folder is faster than a look for each of 118,000 images.
    there = {os.path.normpath(os.path.join(folder, name)) for name in files_below(folder or os.curdir)}
    found = []
    for info in infos:
        path = os.path.normpath(info['img_path'])
        if path in there or os.path.isabs(path) and os.path.exists(path):
            found.append(info)
        else:
            check.problem('images in the JSON without a file', f'copy them to {folder}, or correct data_prefix',
                          f'image {info["img_id"]!r}: {os.path.relpath(path, folder or os.curdir)}'
                          f'{missing(path).removeprefix("missing file")}')
    return found


def _look_at_images(check: DatasetCheck, infos: list[dict]) -> str:
    """Report images whose size differs from the JSON's or that cannot be read; return how many were sampled."""

    def inspect(info: dict):
        wrong = image_fault(info['img_path']) if check.sampling.full else None
        return wrong or image_size(info['img_path']), turned_in_place(info['img_path'])

    seen, words = check.sampling.inspect(infos, inspect)
    check.warn_of_turned([info['img_path'] for info, (_, turned) in seen if turned], len(seen))
    for info, (found, _) in seen:
        name = f'image {info["img_id"]}: {os.path.basename(info["img_path"])}'
        if isinstance(found, str):
            check.problem(f'{found}s', 'copy or download them again', name)
        elif found != (info['width'], info['height']):
            check.problem('images of another size than the JSON says', 'take the file that belongs to the JSON',
                          f'{name} is {found[0]}x{found[1]}, JSON {info["width"]}x{info["height"]}')
    return words
