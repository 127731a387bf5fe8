"""Find and read the result files below folders."""
from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from mmincubation.result import METRICS, Result, ResultError, read_result

PNG_SIGNATURE = b'\x89PNG\r\n\x1a\n'
TASKS = tuple(METRICS)
# Images for training and validation of data that our configs name. mmdet leaves out images without objects.
PUBLIC = {'ImageNet-1K': ((1_281_167, ), 50_000), 'CIFAR-100': ((50_000, ), 10_000),
          'COCO': ((117_266, 118_287), 5_000), 'ADE20K': ((20_210, ), 2_000), 'demo digits': ((8_000, ), 1_000),
          'demo scenes': ((1_500, ), 150)}
SPLITS = ('train', 'training', 'images', 'img', '')  # folders that do not name a data set


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
    def model(self) -> str:
        """The name of the model."""
        return self.result['experiment']['model']

    @property
    def method(self) -> str:
        """The name of the method."""
        return self.result['experiment']['method']

    @property
    def machine(self) -> str:
        """The devices that it ran on: '8 x NVIDIA H100'."""
        return f'{self.result["devices"]} x {self.result["hardware"]}'

    @property
    def data(self) -> tuple[str, ...]:
        """What tells its data from others: digests and sizes; names, in results without digests."""
        data = self.result['data']
        sets = [(data.get(f'{kind}_content') or data[kind], data[f'{kind}_size']) for kind in ('train', 'val')]
        return tuple(str(value) for pair in sets for value in pair)

    @property
    def data_name(self) -> str:
        """The name of its data: `experiment.data`, or the folder of the training set.

        A config that was made from one of ours has its name of the data; the size tells whether they are these.
        """
        name, data = self.result['experiment'].get('data'), self.result['data']
        folder = data.get('folder') or folder_name(data['train'])
        return folder if not name else name if is_public(name, data) else f'{folder} (not {name})'

    @property
    def recipe(self) -> str:
        """A digest of the recipe; without one, of the whole config, so that it equals no other."""
        recipe = self.result.get('recipe')
        text = json.dumps(recipe, sort_keys=True) if recipe else self.result['config_sha256']
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def group(self) -> tuple:
        """What two runs must share to be compared: task, model and data."""
        return TASKS.index(self.task), self.model, self.data

    @property
    def key(self) -> tuple:
        """What runs share that differ by their seed only."""
        return *self.group, self.method, self.recipe


def folder_name(text: str) -> str:
    """Return the last folder in the description of a data set that names it."""
    folders = re.findall(r'\S+/\S*', text) or text.split() or ['?']
    return next((part for part in reversed(folders[0].split('/')) if part not in SPLITS), folders[0])


def is_public(name: str, data: dict) -> bool:
    """Return whether data can be those that our configs call by this name; True for other names.

    A training set may be a fraction, which the name says ('ImageNet-1K, 25 %'), and may be repeated.
    """
    known, _, share = name.partition(', ')
    if known not in PUBLIC:
        return True
    part = float(share.removesuffix(' %')) / 100 if re.fullmatch(r'[\d.]+ %', share) else 1
    sizes = [part * size for size in PUBLIC[known][0]]
    times = [max(1, round(data['train_size'] / size)) for size in sizes]
    near = any(abs(data['train_size'] - count * size) <= 0.005 * count * size
               for size, count in zip(sizes, times, strict=True))
    return near and data['val_size'] == PUBLIC[known][1]


def collect(sources: Iterable[Path]) -> tuple[list[Run], list[str], list[str]]:
    """Read every `result.json` below folders, or given as a file.

    Returns:
        The runs, sorted by task, model, data, method, recipe and seed; one line for each file that cannot be used; and
        one for each that is the copy of another.
    """
    sources = list(sources)
    runs, copies, first = [], [], {}
    problems = [f'{source}: there is no such folder or file' for source in sources if not source.exists()]
    for path in dict.fromkeys(path for source in sources for path in result_files(source)):
        try:
            result = read_result(path)
        except ResultError as error:
            problems.append(str(error))
            continue
        text = json.dumps(result, sort_keys=True)
        if text in first:
            copies.append(f'{path}: left out, it is a copy of {first[text]}')
            continue
        first[text] = path
        pictures, broken = read_pictures(path, result['pictures'])
        runs.append(Run(path, result, pictures))
        problems += broken
    return sorted(runs, key=lambda run: (run.key, run.result['seed'], run.result['finished_at'])), problems, copies


def result_files(source: Path) -> list[Path]:
    """Return the result files below a folder, sorted; a file is one itself."""
    return files_below(source, 'result.json') if source.is_dir() else [source] if source.suffix == '.json' else []


def files_below(folder: Path, name: str) -> list[Path]:
    """Return the files of this name below a folder, sorted, through links too; a folder is entered once."""
    found, seen = [], set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        found += [Path(place, name)] if name in files else []
    return sorted(found)


def read_pictures(result_path: Path, names: Iterable[str]) -> tuple[dict[str, bytes], list[str]]:
    """Return the pictures of one result as PNG bytes by name.

    The second value has a line for each picture that is missing, not a PNG, or outside the folder of its result. If all
    are missing it is empty: somebody has sent the result alone.
    """
    pictures, problems, missing = {}, [], 0
    for name in names:
        try:
            pictures[name] = _read_png(result_path.parent.resolve(), name)
        except (OSError, ValueError) as error:
            missing += isinstance(error, FileNotFoundError)
            problems.append(f'{result_path}: picture {name!r} is left out, {error}; draw it anew with tools/test.py')
    return pictures, problems if missing < len(problems) or pictures else []


def _read_png(folder: Path, name: str) -> bytes:
    path = (folder / name).resolve(strict=True)
    if not path.is_relative_to(folder):  # a link must not bring a file from elsewhere into the page
        raise ValueError('it lies outside the folder of its result')
    data = path.read_bytes()
    if not data.startswith(PNG_SIGNATURE):
        raise ValueError('it is not a PNG')
    return data
