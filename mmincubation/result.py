"""The schema of `result.json`, which every run writes. The leaderboard is made from these files only."""
from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypedDict, get_args, get_origin, get_type_hints, is_typeddict

from mmincubation.atomic import write_atomic

SCHEMA = 2
READABLE = (1, 2)  # results of version 1 lack `recipe`, `details`, the curves and the contents of the data
NUMBER_LIMIT = 2**63
PER_IMAGE, PER_IMAGE_FORMAT, PER_IMAGE_VERSION = 'per_image.json.gz', 'mmincubation per image', 1
# What each task is judged by: title, key in `metrics`, and the factor to percent. The first one is the main one.
METRICS = {
    'classification': (('top-1', 'accuracy/top1', 1), ),
    'detection': (('box AP', 'coco/bbox_mAP', 100), ('mask AP', 'coco/segm_mAP', 100)),
    'segmentation': (('mIoU', 'mIoU', 1), ('aAcc', 'aAcc', 1)),
    'knn': (('k-NN top-1', 'knn/top1', 1), ),
    'linear probe': (('linear top-1', 'linear_probe/top1', 1), ),
}
PROBES = ('knn', 'linear probe')  # tasks in which the weights do not train


class ResultError(ValueError):
    """A result file breaks the schema; the message names the file, the key and the remedy."""


class _ExperimentNames(TypedDict):
    task: Literal['classification', 'detection', 'segmentation', 'knn', 'linear probe']
    model: str
    method: str


class Experiment(_ExperimentNames, total=False):
    """The names of the run in the tables; `method` is 'incub', 'e2e', 'scratch' or another short word.

    `data` is the name of the data set, such as 'COCO'; without it the tables show the name of its folder.
    """

    data: str
    note: str


class Weights(TypedDict):
    """The weights that a run started from; `coverage` is the line in which the loader says what matched."""

    path: str
    sha256: str
    coverage: str


class Output(TypedDict):
    """A weight file that the run wrote; `path` is relative to the result file."""

    path: str
    sha256: str


class _DataValues(TypedDict):
    train: str
    train_size: int
    val: str | None
    val_size: int | None


class Data(_DataValues, total=False):
    """Names and sizes, in images, of the training and validation sets.

    `train_content` and `val_content` are digests of their content, wherever it lies; `folder` is the name of the folder
    of the training set.
    """

    folder: str
    train_content: str | None
    val_content: str | None


class Point(TypedDict):
    """A validation within a phase: the phase's cost up to there, and the task's main metrics."""

    images: int
    block_forwards: int | None
    seconds: float
    metrics: dict[str, float | None]


class _PhaseValues(TypedDict):
    name: str
    epochs: float
    images: int
    block_forwards: int | None
    seconds: float
    metrics: dict[str, float | None]


class Phase(_PhaseValues, total=False):
    """One phase: epochs, images, block-forwards (blocks times images), device-seconds, and its last validation.

    `data_seconds` are the device-seconds spent waiting for batches. Older results and phases that only validate have
    none. `curve` has a point for each validation, in order.
    """

    data_seconds: float
    curve: list[Point]


class SkippedSample(TypedDict):
    """A training sample that could not be used; `index` is its place in the data set."""

    index: int
    fault: str


class DataErrors(TypedDict):
    """The number of training samples that were skipped, and the first of them."""

    skipped: int
    first: list[SkippedSample]


class _ResultValues(TypedDict):
    schema: int
    run: str
    experiment: Experiment
    config: str
    config_sha256: str
    git_commit: str | None
    seed: int
    weights: Weights | None
    outputs: list[Output]
    data: Data
    metrics: dict[str, float | None]
    phases: list[Phase]
    images_seen: int
    block_forwards: int | None
    device_seconds: float
    peak_memory_mib: float
    hardware: str
    devices: int
    versions: dict[str, str]
    pictures: list[str]
    finished_at: str


class Result(_ResultValues, total=False):
    """The content of `result.json`. `metrics` are the validation's; `block_forwards` is null if it was not counted.

    A metric is null if there was nothing to measure; `notes` says so in words, by the name of the metric.
    `recipe` is what the run's config decides, by dotted name; runs that share it differ in their seed alone.
    `details` are tables of the last validation in percent: by title, then by name, such as
    `details['box AP by class']['person']`. `options` are those of a probe, by name, as JSON.
    `skipped_steps` counts the optimiser steps that were skipped because they were not finite; only runs that allow
    such steps have it. `data_errors` describes unusable training samples; only runs that may skip samples have it.
    """

    notes: dict[str, str]
    recipe: dict[str, str]
    details: dict[str, dict[str, float | None]]
    options: dict[str, str]
    skipped_steps: int
    data_errors: DataErrors


@contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Lock `path` against other processes that call this, so that reading, changing and writing it is one step."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The lock is on another file, because each write replaces `path`, and a lock on it would stay with the old file.
    with open(path.with_name(f'.{path.name}.lock'), 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def write_result(path: str | os.PathLike, result: Result) -> None:
    """Write `result` atomically, if it satisfies the schema.

    Raises:
        ResultError: a key is missing, unknown or of the wrong type; nothing is written.
    """
    try:
        require_schema(result)
    except ResultError as error:
        raise ResultError(f'{path}: {error}; not written, correct the value where it is made') from None
    write_atomic(path, (json.dumps(result, indent=2, allow_nan=False) + '\n').encode())


def read_result(path: str | os.PathLike) -> Result:
    """Return the content of one `result.json`.

    Raises:
        ResultError: the file is unreadable, is not JSON, or breaks the schema.
    """
    try:
        result = json.loads(Path(path).read_bytes())
        require_schema(result)
    except (OSError, ValueError, RecursionError) as error:
        raise ResultError(f'{path}: {error}; run its config again, or delete the file') from None
    return result


def require_schema(result: Any) -> None:
    """Refuse a parsed result that breaks the schema.

    Raises:
        ResultError: a key is missing or unknown, a value has another type, a number is not finite, or a path leads out
            of the run's folder; the message names the first such key.
    """
    # First the version: keys of another schema would only raise confusing errors about single keys.
    if isinstance(result, dict) and result.get('schema', SCHEMA) not in READABLE:
        raise ResultError(f'`schema` is {result["schema"]!r:.40}, this version of mmincubation reads {SCHEMA}')
    _require_type(result, Result, '')
    _require_pattern(result['config_sha256'], 'config_sha256', '[0-9a-f]{64}')
    _require_pattern(result['git_commit'], 'git_commit', '[0-9a-f]{40}')
    for key, item in [('weights', result['weights']), *((f'outputs[{i}]', o) for i, o in enumerate(result['outputs']))]:
        _require_pattern(item and item['sha256'], f'{key}.sha256', '[0-9a-f]{64}')
    for index, picture in enumerate(result['pictures']):
        _require_inside(picture, f'pictures[{index}]', '.png')
    for index, output in enumerate(result['outputs']):
        _require_inside(output['path'], f'outputs[{index}].path', '.safetensors')
    try:
        datetime.fromisoformat(result['finished_at'])
    except ValueError:
        raise ResultError(f'`finished_at` is {result["finished_at"]!r:.40}, not an ISO date') from None


def require_experiment(experiment: Any) -> None:
    """Refuse a config's `experiment` that no result could have; call it before training.

    Raises:
        ResultError: it is missing, or one of its keys is missing, unknown or of another type.
    """
    try:
        _require_type(experiment, Experiment, 'experiment')
    except ResultError as error:
        example = "experiment = dict(task='classification', model='vit_demo', method='e2e')"
        raise ResultError(f'config: {error}; give it a line such as {example}') from None


def _require_type(value: Any, hint: Any, key: str) -> None:
    """Refuse a value that is not of a type hint made of TypedDict, dict, list, Literal, `X | None` and plain types.

    Raises:
        ResultError: the message names `key`, or the wrong place below it.
    """
    origin, args = get_origin(hint), get_args(hint)
    if type(None) in args:
        if value is not None:
            _require_type(value, args[0], key)
    elif is_typeddict(hint):
        _require_keys(value, hint, key)
    elif origin is Literal:
        if value not in args:
            raise ResultError(f'`{key}` is {value!r:.40}, not one of {", ".join(map(repr, args))}')
    else:
        _require_plain_type(value, origin or hint, key)
        items = value.items() if origin is dict else enumerate(value) if origin is list else ()
        for name, item in items:
            _require_type(item, args[-1], f'{key}.{name}' if origin is dict else f'{key}[{name}]')


def _require_plain_type(value: Any, kind: type, key: str) -> None:
    # bool is a subclass of int, and an int is a valid float in JSON.
    fits = isinstance(value, (int, float) if kind is float else kind) and not isinstance(value, bool)
    if not fits:
        raise ResultError(f'`{key}` is {value!r:.40}, not {kind.__name__}')
    # NaN compares false, so this refuses NaN, infinities and numbers that no table could hold in one test.
    if kind in (int, float) and not abs(value) < NUMBER_LIMIT:
        raise ResultError(f'`{key}` is not a finite number below 2^63')


def _require_keys(value: Any, hint: Any, key: str) -> None:
    _require_plain_type(value, dict, key or 'the whole file')
    hints, prefix = get_type_hints(hint), f'{key}.' if key else ''
    for missing in sorted(hint.__required_keys__ - value.keys()):
        raise ResultError(f'`{prefix}{missing}` is missing')
    for unknown in sorted(value.keys() - hints.keys()):
        raise ResultError(f'`{prefix}{unknown}` is not a key of schema {SCHEMA}')
    for name, item in value.items():
        _require_type(item, hints[name], prefix + name)


def _require_pattern(value: str | None, key: str, pattern: str) -> None:
    if value is not None and not re.fullmatch(pattern, value):
        raise ResultError(f'`{key}` is {value!r:.80}, which does not match {pattern}')


def _require_inside(value: str, key: str, suffix: str) -> None:
    # The leaderboard links these paths, so a result from elsewhere must not point at other files of the reader.
    path = PurePosixPath(value)
    outside = path.is_absolute() or '..' in path.parts or re.search(r'[\\:\0]', value)
    if outside or path.suffix != suffix:
        raise ResultError(f'`{key}` is {value!r:.80}, not a {suffix} file at or below the folder of the result file')
