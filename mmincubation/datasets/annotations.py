"""Find faults in annotations of COCO's format, by the rules of training and of tools/check.py."""
import math
import os
from collections import Counter
from collections.abc import Iterator

BOX_BORDER = 1.  # pixels; boxes of public COCO reach outside by a rounding error
BORDER = 2.  # of polygons
ONE = 1.001  # with a rounding error
NEAR, PART = 3., 0.1  # pixels, and part of a side, by which a box may differ from its segmentation's bounds

POLYGONS = 'write [[x1, y1, x2, y2, ...]]'


def repeated_ids(entries: list[dict]) -> list[int]:
    """Return the ids that occur more than once."""
    return [key for key, count in Counter(entry['id'] for entry in entries).items() if count > 1]


def is_outside(name: str, folder: str = '') -> bool:
    """Return whether an image's file name leads out of the data set's folder; an absolute one may lie inside."""
    path = os.path.normpath(name)
    if not os.path.isabs(path):
        return path.partition(os.sep)[0] == os.pardir
    inside = {os.path.join(kind(folder or os.curdir), '') for kind in (os.path.abspath, os.path.realpath)}
    return not path.startswith(tuple(inside))


def is_subpixel(annotation: dict) -> bool:
    """Return whether a box is thinner than a pixel or has no area; mmdet leaves such objects out.

    Public COCO has two of them. An empty box whose `area` is not 0 is a fault, and not meant here.
    """
    thin, area = min(annotation['bbox'][2:]), annotation.get('area', 1)
    return area == 0 or thin < 1 and (thin > 0 or area < 1)


def is_part_of_one(annotation: dict, image: dict) -> bool:
    """Return whether no number of a box is above 1 in a larger image, as where boxes are parts of it, from 0 to 1."""
    return max(annotation['bbox']) <= ONE and min(image['width'], image['height']) > 2


def is_lost_as_polygons(annotation: dict) -> bool:
    """Return whether a single object has run lengths: `LoadAnnotations(poly2mask=False)` drops it silently."""
    return isinstance(annotation.get('segmentation'), dict) and not annotation.get('iscrowd')


def annotation_faults(annotation: dict, image: dict | None, categories: set, masks: bool = True) -> Iterator[str]:
    """Yield the faults of an annotation in words.

    `image` is the entry of its image in the JSON, None without one. `categories` are all category ids. `masks` says
    whether segmentations are used; a missing one is no fault here.
    """
    try:
        # The rules compare numbers; on other values of the JSON they raise TypeError, which is one more fault.
        yield from _faults(annotation, image, categories, masks)
    except TypeError:
        yield f'entries of a wrong type{_wrong_entry(annotation)}'


def _wrong_entry(annotation: dict) -> str:
    """Return `: key: value` of the first value that is no number where one belongs; nothing if there is none."""
    segment = annotation.get('segmentation')
    counts = segment.get('counts') if isinstance(segment, dict) else segment
    for key, values in (('category_id', [annotation.get('category_id')]), ('iscrowd', [annotation.get('iscrowd', 0)]),
                        ('segmentation', list(_flat(counts)))):
        for value in values:
            if not isinstance(value, int | float | str if key == 'category_id' else int | float):
                return f' ({key}: {str(value)[:40]!r})' if isinstance(value, str) else f' ({key}: {str(value)[:40]})'
    return ''


def _flat(values) -> Iterator:
    for value in values if isinstance(values, list) else [values]:
        yield from _flat(value) if isinstance(value, list) else [value]


def _faults(annotation: dict, image: dict | None, categories: set, masks: bool) -> Iterator[str]:
    if image is None:
        yield 'annotations of an image that is not in the JSON'
    if annotation.get('category_id') not in categories:
        yield 'annotations with an unknown category_id'
    if annotation.get('iscrowd', 0) not in (0, 1):
        yield 'annotations whose iscrowd is neither 0 nor 1'
    area = annotation.get('area', 1)
    if not isinstance(area, int | float) or not 0 <= area < math.inf:
        yield 'areas that are no number from 0'
        return
    yield from _box_faults(annotation, image)
    if masks and 'segmentation' in annotation:
        yield from segment_faults(annotation['segmentation'], bool(annotation.get('iscrowd')), image)


def _box_faults(annotation: dict, image: dict | None) -> Iterator[str]:
    box = annotation.get('bbox')
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
        yield 'boxes that are not four numbers'
        return
    x, y, width, height = box
    if not math.isfinite(x + y + width + height):  # NaN and infinities survive the sum
        yield 'boxes that are not finite'
    elif width < 0 or height < 0:
        yield 'boxes of negative size'
    elif image and (x < -BOX_BORDER or y < -BOX_BORDER or x + width > image['width'] + BOX_BORDER
                    or y + height > image['height'] + BOX_BORDER):
        yield 'boxes that reach outside their image'
    elif (width == 0 or height == 0) and not is_subpixel(annotation):
        yield 'empty boxes'


def segment_faults(segment, crowd: bool, image: dict | None) -> Iterator[str]:
    """Yield the faults of a segmentation (polygons, or run lengths for crowds and generated masks) in words."""
    if crowd and not isinstance(segment, dict):
        yield 'crowds (iscrowd=1) whose segmentation is not run-length encoded'
    if isinstance(segment, dict):
        yield from _run_faults(segment, image)
    elif not isinstance(segment, list):
        yield 'segmentations that are neither polygons nor run lengths'
    elif not segment:
        yield 'empty segmentations'
    elif all(_is_number(value) for value in segment):
        yield f'a polygon as a flat list: {POLYGONS}'
    elif any(isinstance(polygon, list) and polygon and _is_point(polygon[0]) for polygon in segment) or \
            len(segment) > 2 and all(_is_point(point) for point in segment):
        yield f'a polygon as a list of [x, y] pairs: {POLYGONS}'
    else:
        yield from dict.fromkeys(fault for polygon in segment for fault in _polygon_faults(polygon, image))


def _is_number(value) -> bool:
    return isinstance(value, int | float)


def _is_point(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _run_faults(segment: dict, image: dict | None) -> Iterator[str]:
    size, counts = segment.get('size'), segment.get('counts')
    if not (isinstance(size, list) and len(size) == 2) or not isinstance(counts, str | list):
        yield 'run-length segmentations without size and counts'
        return
    if image and size != [image['height'], image['width']]:
        yield 'run-length segmentations of another size than their image'
    if not counts:
        yield 'empty segmentations'
    else:
        lengths = _run_lengths(counts) if isinstance(counts, str) else counts
        if min(lengths) < 0 or sum(lengths) != size[0] * size[1]:
            yield 'run lengths that do not add up to height x width'


def _run_lengths(text: str) -> list[int]:
    """Decode COCO's compressed run lengths; [-1] if they are damaged.

    A character has 5 bits, low ones first. A number is the difference to the last but one length. The lengths must be
    complete: pycocotools does not initialise the rest of a mask.
    """
    lengths, value, shift = [], 0, 0
    for char in text:
        bits = ord(char) - 48
        if not 0 <= bits < 64:
            return [-1]
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << shift - 4  # sign extension: bit 4 of the last character is the sign
            lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
            value = shift = 0
    return lengths if not shift else [-1]


def _polygon_faults(polygon, image: dict | None) -> Iterator[str]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        yield 'polygons with fewer than three points or an odd number of coordinates'
        return
    low, high, wide = min(polygon), max(polygon[1::2]), max(polygon[0::2])
    if not math.isfinite(sum(polygon)):
        yield 'polygons that are not finite'
    elif image and (low < -BORDER or wide > image['width'] + BORDER or high > image['height'] + BORDER):
        yield 'polygons that reach outside their image'


def segment_bounds(segment) -> tuple[float, float, float, float] | None:
    """Return the corners (x1, y1, x2, y2) around a segmentation without faults; None if it is empty."""
    if not isinstance(segment, dict):
        points = [value for polygon in segment for value in polygon]
        return min(points[::2]), min(points[1::2]), max(points[::2]), max(points[1::2])
    from pycocotools import mask
    if isinstance(segment['counts'], list):
        segment = mask.frPyObjects(segment, *segment['size'])
    x, y, width, height = mask.toBbox(segment).tolist()
    return (x, y, x + width, y + height) if width and height else None


def box_reading(annotation: dict, image: dict) -> str | None:
    """Return how a box fits the bounds of its own segmentation: `'right'`, `'corners'` or `'other'`.

    `'corners'` means that only (x1, y1, x2, y2) fits, not COCO's (x, y, width, height). None: a crowd, or there are not
    both, or the segmentation has a fault.
    """
    segment = annotation.get('segmentation')
    if annotation.get('iscrowd') or not segment:
        return None
    try:
        if next(segment_faults(segment, False, image), None) or next(_box_faults(annotation, None), None):
            return None
    except TypeError:  # values of a wrong type
        return None
    bounds = segment_bounds(segment)
    if bounds is None:
        return None
    x, y, width, height = annotation['bbox']
    if _near((x, y, x + width, y + height), bounds):
        return 'right'
    return 'corners' if _near(annotation['bbox'], bounds) else 'other'


def _near(corners, bounds) -> bool:
    slack = [max(NEAR, PART * (bounds[i + 2] - bounds[i])) for i in (0, 1)] * 2
    return all(abs(a - b) <= s for a, b, s in zip(corners, bounds, slack, strict=True))
