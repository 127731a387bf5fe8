"""Compare the images and classes of a data set with those of the file by which a COCO metric scores it."""
from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain

from mmengine.dataset import BaseDataset

from mmincubation.datasets.annotations import annotation_faults
from mmincubation.datasets.coco import class_ids, file_faults, in_one_line
from mmincubation.datasets.coco_rules import FIX
from mmincubation.errors import ConfigError, DataError


def compare_all(dataset, evaluator, kind: str) -> list[str]:
    """Run `require_same_data` for all metrics of a built evaluator; mmdet's MultiDatasetsEvaluator has one a part."""
    metrics = getattr(evaluator, 'metrics', ())
    parts = dataset.datasets if hasattr(evaluator, 'dataset_prefixes') else [dataset] * len(metrics)
    pairs = zip(parts, metrics, strict=True)
    return list(chain.from_iterable(require_same_data(part, metric, kind) for part, metric in pairs))


def require_same_data(dataset, metric, kind: str) -> list[str]:
    """Make a metric score what a built data set gives: its images, and its classes by name.

    `kind` is `val` or `test`. Metrics that are no CocoMetric, and data sets without `img_id` or classes, are left as
    they are.

    Returns:
        What differs and is no error, one line each.

    Raises:
        DataError: the file of the metric is about other images or classes, or has not what the metric needs.
    """
    parts, coco = list(leaves(dataset)), getattr(metric, '_coco_api', None)
    infos = _infos(parts) if is_coco_metric(type(metric)) else []
    if not infos:
        return []
    names = ' and '.join(dict.fromkeys(str(part.ann_file) for part in parts))
    if coco is None:
        _require_instances(parts, names, kind)
        return []
    known = getattr(coco, 'path', '') if '://' not in names else ''  # a copy of a remote file has another path
    own = os.path.realpath(known) in {os.path.realpath(str(part.ann_file)) for part in parts}
    where = f'{kind}_evaluator: {known or "its ann_file"}'
    try:
        _compare(infos, metric, parts[0].metainfo['classes'], names, own, kind)
    except ConfigError as error:
        raise DataError(f'{where}: {error}') from error
    return list(_restricted(infos, metric, where, names, own or not known))


def is_coco_metric(cls: type) -> bool:
    """Return whether a class is mmdet's CocoMetric or made of it; mmdet need not be imported."""
    return any(base.__name__ == 'CocoMetric' for base in getattr(cls, '__mro__', ()))


def _infos(parts: list) -> list[dict]:
    """Return the infos of all images; none if a part has no such infos or no classes."""
    if not all(isinstance(part, BaseDataset) and part.metainfo.get('classes') for part in parts):
        return []
    infos = [part.get_data_info(i) for part in parts for i in range(len(part))]
    return infos if all('img_id' in info and 'img_path' in info for info in infos) else []


def _compare(infos: list[dict], metric, classes, names: str, own: bool, kind: str) -> None:
    content = metric._coco_api.dataset
    if not own:  # the data set has checked its own file
        _require_usable(content, classes)
    metric.cat_ids = class_ids(content['categories'], classes)
    _require_truth(content, metric, kind)
    _require_order(metric)
    _require_images(infos, metric._coco_api.imgs, names)


def leaves(dataset) -> Iterator:
    """Yield the data sets that read files, without ours and others' wrappers around them."""
    held = vars(dataset) if hasattr(dataset, '__dict__') else {}
    inner = held.get('datasets') or ([held['dataset']] if 'dataset' in held else [])
    yield from chain.from_iterable(map(leaves, inner)) if inner else [dataset]


def _require_instances(parts: list, names: str, kind: str) -> None:
    """mmdet's metric without a file needs the truth in each sample, where PackDetInputs does not put it by itself."""
    steps = [step for part in parts for step in part.pipeline.transforms]
    if not any('instances' in getattr(step, 'meta_keys', ()) for step in steps):
        if names.endswith('.json'):
            raise DataError(f'{kind}_evaluator.ann_file is missing: give it that of the data set, {names}')
        raise DataError(f"{kind}_evaluator: {names} is no COCO json, so the truth must come with the samples: add "
                        f"'instances' to meta_keys of PackDetInputs in {kind}_dataloader.dataset.pipeline")


def _require_usable(content: dict, classes) -> None:
    """Refuse a file that the data set has not read, and so not checked."""
    faults = list(file_faults(content, classes))
    if not faults:
        images, ids = {i['id']: i for i in content['images']}, {c['id'] for c in content['categories']}
        for entry in content.get('annotations') or ():
            wrong = [*annotation_faults(entry, images[entry['image_id']], ids), *['no area'] * ('area' not in entry)]
            faults += [(what, FIX, f'annotation {entry["id"]} of image {entry["image_id"]}') for what in wrong]
    if faults:
        raise ConfigError(in_one_line(faults))


def _require_truth(content: dict, metric, kind: str) -> None:
    if metric.format_only:
        return
    annotations = content.get('annotations') or []
    if not annotations:
        remedy = 'write the predictions with --format-only, or ' if kind == 'test' else ''
        raise ConfigError(f'it has no annotations, so there is nothing to score by; {remedy}give a labelled file')
    bare = [entry['id'] for entry in annotations if not entry.get('segmentation')]
    if bare and 'segm' in metric.metrics:
        raise ConfigError(f"metric='segm' needs segmentations, {len(bare)} of {len(annotations)} annotations have "
                          "none; set metric='bbox'")


def _require_order(metric) -> None:
    """Refuse APs under other classes' names: mmdet's own table has the order of the sorted ids."""
    if metric.classwise and not hasattr(metric, 'measure') and metric.cat_ids != sorted(metric.cat_ids):
        raise ConfigError(f'classwise=True of {type(metric).__name__} would name the APs of classes wrongly: name the '
                          'classes in the order of their category ids, or use mmincubation.FastCocoMetric')


def _require_images(infos: list[dict], images: dict, names: str) -> None:
    """Refuse the first image of the data set that the metric's file does not have, or has as another image."""
    paths = {}
    for info in infos:
        name = f'image id {info.get("img_id")!r} of {names} ({info.get("img_path")})'
        entry = images.get(info.get('img_id'))
        if entry is None:
            raise ConfigError(f'{name} is not in it; give data set and evaluator the same ann_file')
        if paths.setdefault(info['img_id'], info['img_path']) != info['img_path']:
            raise ConfigError(f'image id {info["img_id"]!r} stands for {paths[info["img_id"]]} and {info["img_path"]}; '
                              'give each image of the joined data sets its own id')
        sizes = [(part.get('width'), part.get('height')) for part in (entry, info)]
        if sizes[0] != sizes[1] or not _same_file(entry['file_name'], info['img_path']):
            raise ConfigError(f'{name} is another image there: {entry["file_name"]}, {sizes[0][0]} x {sizes[0][1]}; '
                              'give data set and evaluator the same ann_file')


def _same_file(name: str, path: str) -> bool:
    """Return whether a path may be that of a file name in a JSON; their folders may begin elsewhere."""
    parts = [os.path.normpath(text).strip(os.sep).split(os.sep) for text in (name, path)]
    count = 1 if os.path.isabs(name) else min(map(len, parts))
    return parts[0][-count:] == parts[1][-count:]


def _restricted(infos: list[dict], metric, where: str, names: str, own: bool) -> Iterator[str]:
    """Let the metric score the data set's images alone, where its file has more."""
    ids = list(dict.fromkeys(info['img_id'] for info in infos))
    total = len(metric._coco_api.imgs)
    if len(ids) < total:
        metric.img_ids = ids
        yield f'{where} has {total} images, {len(ids)} of them are scored: the data set gives no others'
    if not own:
        yield f'{where} is not the file of the data set, {names}: same images, and its objects are the truth'
