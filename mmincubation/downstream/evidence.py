"""What an evaluation leaves beside its metrics: tables of details, and a file of its results image by image."""
from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator
from pathlib import Path

from mmengine.evaluator import Evaluator
from mmengine.logging import print_log

from mmincubation.atomic import write_atomic
from mmincubation.result import PER_IMAGE_FORMAT, PER_IMAGE_VERSION


def details_of(evaluator: Evaluator) -> dict[str, dict[str, float | None]]:
    """Return the tables of the last evaluation in percent, by title and name; {} on all ranks but the main one.

    A title that two metrics have gets the number of the second.
    """
    found = {}
    for title, table in _titled(evaluator):
        count = sum(known.partition(' #')[0] == title for known in found)
        found[f'{title} #{count + 1}' if count else title] = dict(table)
    return found


def _titled(evaluator: Evaluator) -> Iterator[tuple[str, dict]]:
    for metric in getattr(evaluator, 'metrics', ()):
        yield from getattr(metric, 'details', {}).items()


def write_per_image(evaluator: Evaluator, path: str | Path) -> bool:
    """Write the last evaluation's results image by image (`.json.gz`), and return whether there were any.

    They are those of the first metric that has some: detection or segmentation, on the main rank. The same results give
    the same bytes.
    """
    for metric in getattr(evaluator, 'metrics', ()):
        if evidence := getattr(metric, 'evidence', None):
            content = dict(format=PER_IMAGE_FORMAT, version=PER_IMAGE_VERSION, **evidence())
            try:
                text = json.dumps(content, separators=(',', ':'), allow_nan=False)
            except ValueError:  # a diverged model's
                print_log(f'{path} is not written: a score or a box is not finite', 'current', logging.WARNING)
                return False
            write_atomic(path, gzip.compress(text.encode(), compresslevel=6, mtime=0))
            return True
    return False
