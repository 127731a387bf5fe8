"""Results of other people, from a YAML file, and the numbers of the paper: shown beside our rows, never merged."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from mmincubation.errors import clean
from mmincubation.result import METRICS

from .collect import TASKS, files_below
from .details import Detail
from .table import Line, Section, columns_of

PAPER = Path(__file__).with_name('paper.yaml')
FILE_NAME = 'reported.yaml'
SIZE_LIMIT = 1 << 20  # bytes
REQUIRED = ('task', 'model', 'data', 'method', 'metrics', 'source')
OPTIONAL = ('cost', 'note')
NAMES = ('task', 'model', 'data', 'method', 'source')  # what two entries of one file may not share
AP_ENDS = ('', '50', '75', ' small', ' medium', ' large')
PERCENT = {
    'classification': ('top-1', 'top-5'),
    'detection': tuple(f'{kind} AP{end}' for kind in ('box', 'mask') for end in AP_ENDS),
    'segmentation': ('mIoU', 'mIoU (multi-scale)', 'mAcc', 'aAcc'),
    'knn': ('k-NN top-1', ),
    'linear probe': ('linear top-1', )}
MARKS = {'quoted': '*', 'reported': ' (reported)'}
MEANING = {'quoted': '* quoted from the source in its remark, not run here.',
           'reported': '(reported): a number of other people, not run here.'}


@dataclass(frozen=True)
class Reported:
    """Hold one result that was not run here; `metrics` are in percent, by title. `kind` is a key of MARKS."""

    kind: str
    task: str
    model: str
    data: str
    method: str
    metrics: dict[str, float]
    source: str
    cost: str = ''
    note: str = ''


def reported_files(source: Path) -> list[Path]:
    """Return the files `reported.yaml` below a folder, sorted; a file that ends in .yaml or .yml is one itself."""
    if source.is_dir():
        return files_below(source, FILE_NAME)
    return [source] if source.suffix in ('.yaml', '.yml') else []


def collect_reported(sources: Iterable[Path]) -> tuple[list[Reported], list[str]]:
    """Read all files of other people's results below folders, or given as files, each once.

    Returns:
        The valid entries in the order of the files, equal ones once, and one line for each fault.
    """
    files = {path.resolve(): path for source in sources for path in reported_files(source)}
    read = [read_reported(path, 'reported') for path in files.values()]
    found = []
    for entry in (entry for entries, _ in read for entry in entries):
        if entry not in found:  # else a copy of the file lies in another folder
            found.append(entry)
    return found, [fault for _, faults in read for fault in faults]


def paper_rows() -> list[Reported]:
    """Return the published numbers of the paper."""
    return read_reported(PAPER, 'quoted')[0]


def read_reported(path: Path, kind: str) -> tuple[list[Reported], list[str]]:
    """Read one file of results that were not run here.

    Returns:
        The valid entries, of this kind, and one line for each fault of the others.
    """
    try:
        content = _load(path)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        return [], [f'{path}: {_in_words(error)}']
    entries, faults, first = [], [], {}
    for number, item in enumerate(content, 1):
        found = list(_entry_faults(item))
        names = None if found else tuple(_words(item[key]) for key in NAMES)
        if names in first and not found:
            found.append(f'has the same {", ".join(NAMES[:-1])} and source as entry {first[names]}; '
                         'delete one, or give one another method')
        faults += [f'{path}: entry {number}{_called(item)}: {clean(text)}' for text in found]
        if not found:
            first[names] = number
            entries.append(_entry(item, kind))
    return entries, faults


class _Loader(yaml.SafeLoader):
    """Read plain YAML. Aliases could make a small file huge; of a key that is there twice, one value would be lost."""

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or event.tag:
            raise ValueError(f'line {event.start_mark.line + 1}: aliases (*name) and tags (!name) are not read; '
                             'write the value as it is')
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise ValueError(f'line {key.start_mark.line + 1}: `{_short(key.value)}` is there twice in one entry; '
                                 'begin each entry with "- "')
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def _load(path: Path) -> list:
    """Return the list of a file; raises ValueError, OSError or YAMLError."""
    with open(path, 'rb') as file:
        data = file.read(SIZE_LIMIT + 1)
    if len(data) > SIZE_LIMIT:
        raise ValueError(f'it is larger than {SIZE_LIMIT >> 20} MiB; split it')
    content = yaml.load(data.decode(), _Loader)  # noqa: S506  a SafeLoader
    if not isinstance(content, list):
        what = {dict: 'one mapping', type(None): 'empty'}.get(type(content), type(content).__name__)
        raise ValueError(f'it is {what}, not a list of entries; begin each entry with "- "')
    return content


def _in_words(error: Exception) -> str:
    """Return an error of reading a file in one line."""
    if isinstance(error, UnicodeDecodeError):
        return f'byte {error.start} is not UTF-8; save the file as UTF-8'
    if isinstance(error, RecursionError):
        return 'it is nested too deeply; it should be a list of entries'
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f'line {error.problem_mark.line + 1} is not YAML: {clean(error.problem or "")}; correct it there'
    if isinstance(error, OSError):
        return f'cannot be read: {error.strerror}; name a file that is there and readable'
    return clean((str(error) or type(error).__name__).splitlines()[0])


def _called(item: Any) -> str:
    """Return how a fault names an entry beside its number: ' (ViT-B e2e)'."""
    names = [clean(item[key])[:40] for key in ('model', 'method') if isinstance(item.get(key), str)] if isinstance(
        item, dict) else []
    return f' ({" ".join(names)})' if any(names) else ''


def _entry_faults(item: Any) -> Iterator[str]:
    """Yield what is wrong with one entry."""
    if not isinstance(item, dict):
        yield f'is {_shown(item)}, not a mapping; give it the fields {", ".join(REQUIRED)}'
        return
    for key in item:
        if key not in (*REQUIRED, *OPTIONAL):
            yield f'`{_short(key)}` is not a field; {_nearest(_short(key), (*REQUIRED, *OPTIONAL))}'
    for key in (*REQUIRED, *OPTIONAL):
        if key not in item:
            if key in REQUIRED:
                yield f'`{key}` is missing; add it'
        elif key == 'metrics':
            yield from _metric_faults(item[key], item.get('task'))
        elif not isinstance(item[key], str):
            yield f'`{key}` is {_shown(item[key])}, not text; write it in quotes'
        elif not item[key].strip():
            yield f'`{key}` is empty; fill it in' + (', or delete it' if key in OPTIONAL else '')
        elif key == 'task' and item[key] not in TASKS:
            yield f'`task` is {_shown(item[key])}; {_nearest(item[key], TASKS)}'


def _metric_faults(metrics: Any, task: Any) -> Iterator[str]:
    """Yield what is wrong with the metrics of an entry; titles are judged if the task is known."""
    if not isinstance(metrics, dict) or not metrics:
        yield f'`metrics` is {_shown(metrics)}, not a mapping such as {{top-1: 81.8}}; write one'
        return
    titles = PERCENT.get(task) if isinstance(task, str) else None
    fits = True
    for title, value in metrics.items():
        if titles and title not in titles:
            yield f'metric `{_short(title)}` is not one of {task}; {_nearest(_short(title), titles)}'
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f'metric `{_short(title)}` is {_shown(value)}, not a number; write one such as 81.8'
            fits = False
        elif not 0 <= value <= 100:
            yield f'metric `{_short(title)}` is {_shown(value)}; metrics are percent, from 0 to 100'
            fits = False
    main = [title for title, *_ in METRICS[task] if title in metrics] if titles else []
    for title in (main or metrics) if fits else ():
        if 0 < (value := metrics[title]) <= 1:
            yield (f'metric `{_short(title)}` is {_shown(value)}; metrics are percent: {value:g} -> '
                   f'{100 * value:g}?')


def _nearest(name: str, valid: tuple[str, ...]) -> str:
    near = get_close_matches(name.lower(), [each.lower() for each in valid], 1, 0.5)
    found = [each for each in valid if [each.lower()] == near]
    return f'nearest: {found[0]}' if found else f'there are {", ".join(valid)}'


def _short(value: Any) -> str:
    return clean(value[:60]) if isinstance(value, str) else _shown(value)


def _shown(value: Any) -> str:
    """Return a wrong value for a message; containers and long values are cut, so that nothing floods the screen."""
    if isinstance(value, dict | list | set | tuple):
        return f'a {type(value).__name__} of {len(value)}'
    if isinstance(value, int) and abs(value) >= 10**20:  # Python refuses to print huge ones
        return 'a huge number'
    return 'empty' if value is None else repr(value)[:40]


def _words(text: str) -> str:
    """Return text of YAML on one line."""
    return ' '.join(text.split())


def _entry(item: dict[str, Any], kind: str) -> Reported:
    texts = {key: _words(value) for key, value in item.items() if key != 'metrics'}
    metrics = {title: float(item['metrics'][title]) for title in PERCENT[item['task']] if title in item['metrics']}
    return Reported(kind, metrics=metrics, **texts)


def add_reported(sections: list[Section], entries: Iterable[Reported]) -> list[Section]:
    """Return the sections with a line for each entry, beside the lines of the same model and data.

    The given sections are not changed. A task without a section gets one.
    """
    entries, made = list(entries), {section.task: section for section in sections}
    for task in TASKS:
        own = [entry for entry in entries if entry.task == task]
        if own:
            section = made.get(task) or Section(task, columns_of(task), [], [])
            lines = list(section.lines)
            for entry in own:
                lines.insert(_place(lines, entry), line_of(entry, section.columns))
            notes = [*section.notes, *(MEANING[kind] for kind in MARKS if any(entry.kind == kind for entry in own))]
            made[task] = replace(section, lines=lines, notes=[*dict.fromkeys(notes)])
    return [made[task] for task in TASKS if task in made]


def _place(lines: list[Line], entry: Reported) -> int:
    """Return where a line goes: behind the last one of its model and data, else of its model, else to the end."""
    models = [i for i, line in enumerate(lines, 1) if line.cells['model'] == entry.model]
    # Our data of one name and other content have their size behind it: 'COCO (118,287 + 5000 images)'.
    same = [i for i in models if f'{lines[i - 1].cells["data"]} ('.startswith(f'{entry.data} (')]
    return (same or models or [len(lines)])[-1]


def line_of(entry: Reported, columns: list[str]) -> Line:
    """Return an entry as a line of a section with these columns; metrics without a column unfold."""
    cells = {column: '-' for column in columns}
    cells.update((title, f'{value:.1f}') for title, value in entry.metrics.items() if title in cells)
    cells.update(model=entry.model, data=entry.data, method=entry.method + MARKS[entry.kind], cost=entry.cost or '-')
    whole = [(title, _digits(value)) for title, value in entry.metrics.items()]
    hidden = any(cells.get(title) != text for title, text in whole)
    details = [Detail(f'As {entry.kind}', ('metric', 'percent'), whole)] if hidden else []
    said = [text for text in (entry.source, entry.note) if text]
    return Line(entry.kind, cells, frozenset(), said, details, record_of(entry), [])


def _digits(value: float) -> str:
    """Return a number with all its digits, and at least one behind the point."""
    return f'{value:.1f}' if round(value, 1) == value else repr(value)


def record_of(entry: Reported) -> dict[str, Any]:
    """Return an entry as plain data, with the keys of a measured row where it has them."""
    metrics = {title: dict(mean=value) for title, value in entry.metrics.items()}
    return dict(kind=entry.kind, task=entry.task, model=entry.model, data=entry.data, method=entry.method,
                metrics=metrics, cost=entry.cost or None, source=entry.source, note=entry.note or None)
