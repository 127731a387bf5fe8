"""Find and read the result files below a folder."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmincubation.result import Result, ResultError, read_result

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
TASKS = ('classification', 'detection', 'segmentation')


@dataclass(frozen=True)
class Run:
    """Hold one result, its file, and the PNG bytes of its pictures by relative path."""

    path: Path
    result: Result
    pictures: dict[str, bytes] = field(default_factory=dict)

    @property
    def task(self) -> str:
        """The task of the run, one of TASKS."""
        return self.result['experiment']['task']

    @property
    def group(self) -> tuple:
        """What two runs must share to be compared: task, model and data."""
        data = self.result['data']
        sets = tuple(str(data[key]) for key in ('train', 'train_size', 'val', 'val_size'))
        return TASKS.index(self.task), self.result['experiment']['model'], sets

    @property
    def key(self) -> tuple:
        """What runs share that differ by their seed only."""
        return *self.group, self.result['experiment']['method']


def clean(text: str) -> str:
    """Return the text on one line, without characters that could control a terminal or are invisible."""
    return ''.join(char if char.isprintable() else '?' for char in text)


def collect(folder: Path) -> tuple[list[Run], list[str]]:
    """Read every `result.json` below `folder`.

    Returns:
        The runs, sorted by task, model, method and seed, and one line for each file that cannot be used.
    """
    runs, problems = [], []
    for path in sorted(folder.glob('**/result.json')):
        try:
            result = read_result(path)
        except ResultError as error:
            problems.append(str(error))
            continue
        pictures, broken = read_pictures(path, result['pictures'])
        runs.append(Run(path, result, pictures))
        problems += broken
    return sorted(runs, key=lambda run: (run.key, run.result['seed'], run.result['finished_at'])), problems


def read_pictures(result_path: Path, names: Iterable[str]) -> tuple[dict[str, bytes], list[str]]:
    """Return the pictures of one result as PNG bytes by name.

    The second value has a line for each picture that is missing, not a PNG, or outside the folder of its result.
    """
    pictures, problems = {}, []
    for name in names:
        try:
            pictures[name] = _read_png(result_path.parent.resolve(), name)
        except (OSError, ValueError) as error:
            problems.append(f'{result_path}: picture {name!r} is left out, {error}; draw it anew with tools/test.py')
    return pictures, problems


def _read_png(folder: Path, name: str) -> bytes:
    path = (folder / name).resolve(strict=True)
    if not path.is_relative_to(folder):  # a link must not bring a file from elsewhere into the page
        raise ValueError('it lies outside the folder of its result')
    data = path.read_bytes()
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError('it is not a PNG')
    return data


def newest_per_seed(runs: Iterable[Run]) -> tuple[list[Run], list[str]]:
    """Keep the newest of the runs that share everything, seed included; return a line for each other one."""
    newest: dict[tuple, Run] = {}
    left_out = []
    # In the order of time, so that a later run replaces an earlier one.
    for run in sorted(runs, key=lambda run: run.result['finished_at']):
        key = (*run.key, run.result['seed'])
        if key in newest:
            left_out.append(f'{newest[key].path}: left out, {run.path} is a newer run with the same method and seed')
        newest[key] = run
    return sorted(newest.values(), key=lambda run: (run.key, run.result['seed'])), left_out
