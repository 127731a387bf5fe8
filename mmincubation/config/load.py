"""Config files and the changes of `--cfg-options`; a file or an option that cannot be read is named in one line."""
import ast
import builtins
import os
import re
import traceback
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmincubation.errors import ConfigError

from .packages import with_remedy
from .types import runner_keys
from .values import read_value

if TYPE_CHECKING:
    from mmengine.config import Config


def load_config(path: str | Path, options: dict | None = None) -> 'Config':
    """Read a config file and merge `options` (dotted key -> value, from `--cfg-options`).

    Raises:
        ConfigError: the file or one of its `_base_` is missing or wrong, or an option changes nothing.
    """
    path = Path(path)
    _need_file(path, f'config {path}')
    files = _sources(path)
    from mmengine.config import Config  # not before: a wrong path must not wait for torch

    from mmincubation.compat.config_imports import know_standard_library

    from .plain import without_classes
    know_standard_library()
    try:
        cfg = without_classes(Config.fromfile(path))
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from error
    except Exception as error:  # a config is a program: anything can go wrong in it
        raise ConfigError(f'{_where(error, files, path)}: {_one_line(error)}') from error
    _merge(cfg, options or {})
    return cfg


def parse_options(words: list[str] | None) -> dict:
    """Read the words of `--cfg-options`, each `dotted.key=value`; return a dict of dotted keys.

    Raises:
        ConfigError: a word is not written so, or its value cannot be read.
    """
    options = {}
    for word in words or []:
        key, sign, text = word.partition('=')
        if not sign or not all(part.strip() for part in key.split('.')):
            raise ConfigError(f"--cfg-options {word}: write it as key=value, all of it in quotes if it has spaces")
        try:
            options[key.strip()] = read_value(text)
        except (ValueError, RecursionError, MemoryError) as error:  # the last two: brackets without end
            raise ConfigError(f"--cfg-options {word}: the value cannot be read; write it as in Python (numbers, "
                              "'text', [lists], (tuples), dicts of these) or as plain text") from error
    return options


def _need_file(path: Path, what: str) -> None:
    if path.is_file():
        return
    known = sorted({str(p) for p in (*Path('configs').rglob('*.py'), *path.parent.glob('*.py'))})
    known = [k for k in known if _alike(Path(k).name, path.name) > 0.6]
    near = max(known, key=lambda k: _alike(k, str(path)), default='')
    problem = 'is a folder' if path.is_dir() else 'does not exist'
    raise ConfigError(f'{what} {problem}' + (f' (nearest: {near})' if near else ''))


def _alike(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()


def _sources(path: Path, trail: tuple[str, ...] = ()) -> set[str]:
    """Parse a config and its bases and return their absolute paths; `trail` is the files that led here.

    mmengine would name neither file nor line of an error.
    """
    name = os.path.abspath(path)
    if name in trail:
        raise ConfigError(f'{path}: has itself as its _base_')
    files = {name}
    if path.suffix != '.py':
        return files
    try:
        tree = ast.parse(_without_env(_text(path)))
    except SyntaxError as error:
        raise ConfigError(f'{path}:{error.lineno}: {error.msg}') from error
    for line, base in _bases(tree):
        file = Path(os.path.normpath(path.parent / base))
        _need_file(file, f'{path}:{line}: base {file}')
        files |= _sources(file, (*trail, name))
    return files


def _text(path: Path) -> str:
    content, remedy = path.read_bytes(), 'save it as UTF-8 without a byte order mark'
    try:
        text = content.decode('utf-8')
    except UnicodeDecodeError as error:
        place = f'byte 0x{content[error.start]:02x} in line {1 + content[:error.start].count(10)}'
        raise ConfigError(f'{path}: is not UTF-8 ({place}); {remedy}') from error
    if text.startswith('\ufeff'):
        raise ConfigError(f'{path}: begins with a byte order mark; {remedy}')
    if '\0' in text:  # UTF-16 is full of them
        raise ConfigError(f'{path}: has null bytes (the first in line {text[:text.index(chr(0))].count(chr(10)) + 1}); '
                          f'{remedy}')
    return text


def _bases(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, relative path) of the bases that are literal files, in both styles; mmengine finds the others."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '_base_':
            strings = [n for n in ast.walk(node.value) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            yield from ((s.lineno, s.value) for s in strings if '::' not in s.value and '{{' not in s.value)
        elif isinstance(node, ast.With):  # read_base(): a dot is this folder, each further one the folder above
            imports = [n for n in node.body if isinstance(n, ast.ImportFrom) and n.level and n.module]
            yield from ((n.lineno, '../' * (n.level - 1) + n.module.replace('.', '/') + '.py') for n in imports)


def _where(error: Exception, files: set[str], path: Path) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if os.path.abspath(f.filename) in files]
    return f'{os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}' if frames else str(path)


def _one_line(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    if last.name == '__call__' and Path(last.filename).name == 'lazy.py':  # it raises a RuntimeError without words
        return 'a config that imports more than the standard library is one of the read_base() style, in which what ' \
               'is imported can be a type and cannot be called; write the value itself'
    text = str(error.args[0] if error.args else error).removesuffix(' in None')  # a place that mmengine does not know
    if text.startswith('The configuration file type in the inheritance chain must match'):
        file = re.search(r'non-builtin module in (.*?\.py)\.', text)
        where = f': {file[1]}' if file else ''
        return f'one of its bases is of another style{where}; a config with _base_ has bases that import nothing but ' \
               'the standard library, one with read_base() has bases without _base_'
    if 'import_modules_from_strings() ' in text:
        return "custom_imports: write it as dict(imports=['package.module'])"
    kind = type(error).__name__
    if text.startswith('Failed to import custom modules'):
        while inner := error.__cause__ or error.__context__:
            error = inner
        kind, text = 'custom_imports', str(error)
    return f'{kind}: {with_remedy(text.splitlines()[0]) if text else ""}'


def _without_env(source: str) -> str:
    """mmengine's `{{$VARIABLE:default}}` is no Python."""
    return re.sub(r'''\{\{\s*['"]?\s*\$.*?\}\}''', 'None', source)


def _merge(cfg: 'Config', options: dict) -> None:
    """Change `cfg` as mmengine does; raise ConfigError for an option that would not do what it says."""
    _refuse_helpers(cfg, options)
    options = dict(options)
    for key, value in options.items():
        old = _reach(cfg, key, value)[0]
        if isinstance(value, str) and re.search(r',\s', value) and isinstance(old, list | tuple):
            raise ConfigError(f'--cfg-options {key}={value}: the config has a list there; write it in brackets, [a, b]')
        if isinstance(value, dict) and not isinstance(old, dict | list) and _is_there(cfg, key):  # None, or a name
            options[key] = dict(value, _delete_=True)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, TypeError, ValueError, AttributeError) as error:  # of mmengine, for what is no dict
        reasons = [f'{key}: {reason}' for key, value in options.items() if (reason := _reach(cfg, key, value)[1])]
        raise ConfigError('--cfg-options ' + (reasons or [f'{", ".join(options)}: {_one_line(error)}'])[0]) from error


def _is_there(cfg: 'Config', key: str) -> bool:
    parent, _, last = key.rpartition('.')
    holder = _reach(cfg, parent, {})[0] if parent else cfg
    return holder is not None and not isinstance(holder, list | tuple) and last in holder


def _reach(cfg: 'Config', key: str, value: Any) -> tuple[Any, str]:
    """(what the config has at a dotted key or None, why the value cannot be set there or nothing)."""
    node, parts = cfg, key.split('.')
    for i, part in enumerate(parts):
        place, last = '.'.join(parts[:i]), i + 1 == len(parts)
        if isinstance(node, list | tuple):
            item = node[int(part)] if part.isdigit() and int(part) < len(node) else None
            if isinstance(node, tuple) or not isinstance(item, dict) or last and not isinstance(value, dict):
                return item, f'{place} has {len(node)} items, and options change dicts of a list alone, by their ' \
                             f'number from 0 on; give all of {place}'
            node = item
        elif isinstance(node, dict) or i == 0:
            if part not in node:
                return None, ''
            node = node[part]
        else:
            return None, f'{place} is {node!r}, which has no keys; give all of {place}'
    return node, ''


def _refuse_helpers(cfg: 'Config', options: dict) -> None:
    """Raise ConfigError for an option that sets a helper variable: these have been used before options arrive."""
    names = set().union(*(assigned for _, assigned, _ in names_in(cfg.text))) if options else set()
    helpers = (names or set(cfg)) - runner_keys()  # of files whose names are not traced, all that no tool reads
    for option in options:
        if option.partition('.')[0] in helpers:
            raise ConfigError(f'--cfg-options {option}: {option.partition(".")[0]} is a helper variable of the config, '
                              'changing it has no effect any more; change the keys that were made from it')


def names_in(text: str) -> list[tuple[str, set[str], set[str]]]:
    """(file, names assigned, names read) of a text-style config and its bases, from `Config.text`; else empty."""
    _, *parts = re.split(r'^((?:/|[A-Za-z]:).*\.py)$', text, flags=re.MULTILINE)  # each file's name is on a line
    found = []
    for file, source in zip(parts[::2], parts[1::2], strict=True):
        try:
            nodes = list(ast.walk(ast.parse(_without_env(source))))
        except SyntaxError:
            return []
        names = [n for n in nodes if isinstance(n, ast.Name)]
        read = {n.id for n in names if isinstance(n.ctx, ast.Load)} - set(dir(builtins))
        read |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}  # _base_.name
        found.append((file, {n.id for n in names if isinstance(n.ctx, ast.Store)}, read))
    return found
