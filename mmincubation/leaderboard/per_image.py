"""Read a file of results image by image, which mmincubation/downstream/evidence.py writes.

It is gzipped JSON that needs no data set. Both tasks have `classes` (names) and `images`; indices count from 0.

Detection: `images` are [name, width, height]. `truth` and each of `results` (`bbox`, `segm`) are columns of one length:
`image`, `label`, `bbox` [x, y, width, height], `area`, and `iscrowd` or `score`; with masks `mask`, COCO's compressed
RLE of the image's size. `iou_thrs` and `max_dets` are the evaluation's.

Segmentation: `images` are names, and `areas` has for each image a list of [class, intersection, prediction, truth] in
pixels, for each class that the prediction or the truth has.
"""
from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmincubation.result import PER_IMAGE, PER_IMAGE_FORMAT, PER_IMAGE_VERSION, ResultError

BYTES = 2**30  # of JSON; COCO's 5,000 validation images with 100 masks each have a fifth of it
SIDE = 2**16  # pixels
KINDS = ('bbox', 'segm')


def read_per_image(path: str | Path) -> dict[str, Any]:
    """Return the content of a per-image file, or of the one in a folder.

    Raises:
        ResultError: there is none, it is too large, or its content is not what this module describes; one line.
    """
    path = Path(path)
    path = path / PER_IMAGE if path.is_dir() else path
    try:
        content = json.loads(_unpacked(path))
        _require_content(content)
    except FileNotFoundError:
        raise ResultError(f'{path} does not exist; tools/train.py and tools/test.py of a detector or a segmentor write '
                          f'{PER_IMAGE} into the work dir') from None
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise ResultError(f'{path}: {error}; run its test again') from None
    return content


def _unpacked(path: Path) -> bytes:
    with gzip.open(path) as file:
        data = file.read(BYTES + 1)
    if len(data) > BYTES:
        raise ValueError(f'its content is larger than {BYTES:,} bytes')
    return data


def _require_content(content: Any) -> None:
    _require(isinstance(content, dict) and content.get('format') == PER_IMAGE_FORMAT,
             'no file of results image by image')
    _require(content.get('version') == PER_IMAGE_VERSION,
             f'version {content.get("version")!r:.20}, this version of mmincubation reads {PER_IMAGE_VERSION}')
    _require(content.get('task') in [*CHECKS], f'task {content.get("task")!r:.40} is not one of {", ".join(CHECKS)}')
    keys, check = CHECKS[content['task']]
    keys = {'format', 'version', 'task', 'classes', 'images'} | keys
    _require(content.keys() == keys, f'keys that are missing or unknown: {sorted(content.keys() ^ keys)!r:.120}')
    for key in ('classes', 'images'):
        _require(isinstance(content[key], list) and content[key], f'`{key}` is no list with something in it')
    _require(all(isinstance(name, str) for name in content['classes']), '`classes` are not names')
    check(content)


def _require_detection(content: dict) -> None:
    for image in content['images']:
        _require(isinstance(image, list) and len(image) == 3 and isinstance(image[0], str), 'an image has no name')
        _require(all(type(side) is int and 0 < side <= SIDE for side in image[1:]), 'an image has no proper size')
    for key in ('iou_thrs', 'max_dets'):
        _require_numbers(content[key], f'`{key}`', some=True)
    _require(all(type(cap) is int and cap > 0 for cap in content['max_dets']), '`max_dets` are no whole numbers')
    results = content['results']
    _require(isinstance(results, dict) and results and set(results) <= {*KINDS}, f'`results` are not {KINDS}')
    _require_columns(content['truth'], 'truth', 'iscrowd', 'segm' in results, content)
    _require(set(content['truth']['iscrowd']) <= {0, 1}, '`truth.iscrowd` is not 0 or 1')
    for kind, columns in results.items():
        _require_columns(columns, f'results.{kind}', 'score', kind == 'segm', content)


def _require_columns(columns: Any, name: str, key: str, masks: bool, content: dict) -> None:
    keys = {'image', 'label', 'bbox', 'area', key} | ({'mask'} if masks else set())
    _require(isinstance(columns, dict) and columns.keys() == keys, f'`{name}` has not the columns {sorted(keys)}')
    _require(all(isinstance(column, list) for column in columns.values()), f'`{name}` has columns that are no lists')
    _require(len({len(column) for column in columns.values()}) == 1, f'`{name}` has columns of different lengths')
    _require_indices(columns['image'], len(content['images']), f'`{name}.image`')
    _require_indices(columns['label'], len(content['classes']), f'`{name}.label`')
    _require_numbers(columns['area'], f'`{name}.area`')
    _require_numbers(columns[key], f'`{name}.{key}`')
    _require(all(isinstance(box, list) and len(box) == 4 for box in columns['bbox']), f'`{name}.bbox` is not of 4')
    _require_numbers([side for box in columns['bbox'] for side in box], f'`{name}.bbox`')
    _require(all(isinstance(mask, str) and mask.isascii() for mask in columns.get('mask', ())),
             f'`{name}.mask` is not text')


def _require_segmentation(content: dict) -> None:
    areas, count = content['areas'], len(content['classes'])
    _require(all(isinstance(name, str) for name in content['images']), 'an image has no name')
    _require(isinstance(areas, list) and len(areas) == len(content['images']), '`areas` has not a list for each image')
    for rows in areas:
        _require(isinstance(rows, list) and all(isinstance(row, list) and len(row) == 4 for row in rows),
                 '`areas` has rows that are not of 4')
        _require_indices([row[0] for row in rows], count, '`areas`')
        _require(len({row[0] for row in rows}) == len(rows), '`areas` has a class twice in an image')
        _require(all(type(area) is int and area < SIDE**2 for row in rows for area in row[1:])
                 and all(0 <= inside <= min(predicted, truth) for _, inside, predicted, truth in rows),
                 '`areas` has an intersection larger than its parts, or no counts of pixels')


CHECKS = dict(detection=({'iou_thrs', 'max_dets', 'truth', 'results'}, _require_detection),
              segmentation=({'areas'}, _require_segmentation))


def _require_indices(values: Iterable, end: int, name: str) -> None:
    _require(all(type(value) is int and 0 <= value < end for value in values), f'{name} has no index from 0 to {end}')


def _require_numbers(values: Any, name: str, some: bool = False) -> None:
    _require(isinstance(values, list) and (values or not some), f'{name} is no list of numbers')
    # NaN compares false, so this refuses it too
    _require(all(type(v) in (int, float) and abs(v) < 2**63 for v in values), f'{name} has something else than numbers')


def _require(fine: bool, what: str) -> None:
    if not fine:
        raise ValueError(what)
