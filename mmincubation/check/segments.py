"""Segmentations of one annotation: polygons, or run lengths for crowds and generated masks."""
import math
from collections.abc import Iterator

BORDER = 2.  # pixels


def segment_faults(segment, crowd: bool, image: dict | None) -> Iterator[str]:
    """What is wrong with a segmentation, in words."""
    if crowd and not isinstance(segment, dict):
        yield 'crowds (iscrowd=1) whose segmentation is not run-length encoded'
    if isinstance(segment, dict):
        yield from _run_faults(segment, image)
    elif not isinstance(segment, list):
        yield 'segmentations that are neither polygons nor run lengths'
    elif not segment:
        yield 'empty segmentations'
    else:
        yield from dict.fromkeys(fault for polygon in segment for fault in _polygon_faults(polygon, image))


def _run_faults(segment: dict, image: dict | None) -> Iterator[str]:
    size, counts = segment.get('size'), segment.get('counts')
    if not (isinstance(size, list) and len(size) == 2) or not isinstance(counts, str | list):
        yield 'run-length segmentations without size and counts'
        return
    if image and size != [image['height'], image['width']]:
        yield 'run-length segmentations of another size than their image'
    if not counts:
        yield 'empty segmentations'
    elif isinstance(counts, list) and (min(counts) < 0 or sum(counts) != size[0] * size[1]):
        yield 'run lengths that do not add up to height x width'


def _polygon_faults(polygon, image: dict | None) -> Iterator[str]:
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        yield 'polygons with fewer than three points or an odd number of coordinates'
        return
    low, high, wide = min(polygon), max(polygon[1::2]), max(polygon[0::2])
    if not math.isfinite(sum(polygon)):
        yield 'polygons that are not finite'
    elif image and (low < -BORDER or wide > image['width'] + BORDER or high > image['height'] + BORDER):
        yield 'polygons that reach outside their image'
