"""Config files: loaded and checked before anything is built, with every mistake named in one line."""
import ast
import builtins
import os
import re
import traceback
from collections.abc import Iterator
from difflib import SequenceMatcher, get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from .config_types import runner_keys, type_problems
from .signatures import nearest

if TYPE_CHECKING:
    from mmengine.config import Config


# By a folder in the path of the data that is missing.
DATA_REMEDIES = {
    'demo': 'run `python tools/make_demo_data.py`',
    'imagenet': 'prepare it as docs/tasks/imagenet.md says',
    'cifar100': '''run `python -c "from datasets import load_dataset as l; '''
                '''l('uoft-cs/cifar100').save_to_disk('data/cifar100')"`''',
}
PICKLE = 'is a pickle, which runs code as it is read: refused, nothing was executed; write what it holds as JSON'


class ConfigError(ValueError):
    """A config that cannot be run; the message has one line for each mistake."""


def load_config(path: str | Path, options: dict | None = None) -> 'Config':
    """Read a config file and merge `options` (dotted key -> value, from `--cfg-options`).

    Raises:
        ConfigError: the file or one of its `_base_` is missing or wrong, or an option changes nothing.
    """
    path = Path(path)
    _need_file(path, f'config {path}')
    files = _check_sources(path)
    from mmengine.config import Config  # not before: a wrong path must not wait for torch
    try:
        cfg = Config.fromfile(path)
    except Exception as error:  # a config is a program: anything can go wrong in it
        raise ConfigError(f'{_where(error, files, path)}: {_one_line(error)}') from error
    _check_options(cfg, options or {})
    try:
        cfg.merge_from_dict(options or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f'--cfg-options: {_one_line(error)}') from error
    return cfg


def check_config(cfg: 'Config', mode: str = 'train') -> None:
    """Find all mistakes that can be seen without building anything; `mode` is `'train'` or `'test'`.

    Top-level keys: valid is what the Runner or the tools read, and any helper variable, that is a name which the
    config's files assign AND read, or one that begins with `_`. So a misspelt key is an error however far it is from a
    valid one, because nothing reads it, and so is a new key from `--cfg-options`. Only near misses of valid keys are
    errors where names cannot be traced (yaml, json), where nothing is left to read (a config that a run dumped holds
    values only), and in the configs inside the MM packages. Then types and keys of all nested dicts, the data of the
    dataloaders that the mode uses, and the weights to start from.

    Raises:
        ConfigError: one line for each mistake.
    """
    settings = dict(cfg.items())
    problems = [*_top_level_problems(cfg), *type_problems(settings), *_data_problems(settings, mode)]
    if mode == 'train':  # a test loads the checkpoint that it is given
        problems += _weight_problems(settings)
    if problems:
        raise ConfigError('\n'.join(dict.fromkeys(problems)))


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


def _check_sources(path: Path, trail: tuple[str, ...] = ()) -> set[str]:
    """Parse a config and its bases; returns their absolute paths. mmengine names neither file nor line of an error."""
    name = os.path.abspath(path)
    if name in trail:
        raise ConfigError(f'{path}: has itself as its _base_')
    files = {name}
    if path.suffix != '.py':
        return files
    try:
        tree = ast.parse(_without_env(path.read_text('utf-8')))
    except SyntaxError as error:
        raise ConfigError(f'{path}:{error.lineno}: {error.msg}') from error
    for line, base in _bases(tree):
        file = Path(os.path.normpath(path.parent / base))
        _need_file(file, f'{path}:{line}: _base_ {file}')
        files |= _check_sources(file, (*trail, name))
    return files


def _bases(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, relative path) of the `_base_` that are literal files; mmengine finds the others."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', None) == '_base_':
            strings = [n for n in ast.walk(node.value) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
            yield from ((s.lineno, s.value) for s in strings if '::' not in s.value and '{{' not in s.value)


def _where(error: Exception, files: set[str], path: Path) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in files]
    return f'{os.path.relpath(frames[-1].filename)}:{frames[-1].lineno}' if frames else str(path)


def _one_line(error: Exception) -> str:
    if isinstance(error.__cause__, ImportError):  # of custom_imports
        error = error.__cause__
    text = str(error.args[0] if error.args else error)
    return f'{type(error).__name__}: {text.splitlines()[0] if text else ""}'


def _without_env(source: str) -> str:
    """mmengine's `{{$VARIABLE:default}}` is no Python."""
    return re.sub(r'''\{\{\s*['"]?\s*\$.*?\}\}''', 'None', source)


def _names_in(text: str) -> list[tuple[str, set[str], set[str]]]:
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


def _check_options(cfg: 'Config', options: dict) -> None:
    """Helper variables have already been used when options arrive: such an option would change nothing, silently."""
    helpers = set().union(*(assigned for _, assigned, _ in _names_in(cfg.text))) - runner_keys() if options else set()
    for option in options:
        if option.partition('.')[0] in helpers:
            raise ConfigError(f'--cfg-options {option}: {option.partition(".")[0]} is a helper variable of the config, '
                              'changing it has no effect any more; change the keys that were made from it')


def _top_level_problems(cfg: 'Config') -> Iterator[str]:
    valid, names = runner_keys(), _names_in(cfg.text or '')
    own = set().union(*(assigned for file, assigned, _ in names if '/.mim/' not in file))
    anywhere = set().union(*(assigned for _, assigned, _ in names))
    read = set().union(*(read for _, _, read in names))
    traced = bool(read) or '_base_' in own
    for key in cfg:
        if key in valid or key in read or key.startswith('_'):
            continue
        if not names or key in anywhere and not (traced and key in own):
            if not get_close_matches(key, valid, 1, 0.9):
                continue
        yield _nobody_reads(key, cfg, valid)


def _nobody_reads(key: str, cfg: 'Config', valid: set[str]) -> str:
    """The nearest key may also be one level deeper: `max_epochs` belongs into `train_cfg`."""
    inner = {name: f'{top}.{name}' for top in valid if isinstance(cfg.get(top), dict) for name in cfg[top]}
    hint = nearest(key, inner | {name: name for name in valid})
    return f'{key}: nothing reads this top-level key' + (hint or ': remove it, or begin its name with _')


def dicts_in(node, place: str) -> Iterator[tuple[str, dict]]:
    """All (dotted place, dict) within the value of a config that is at `place`."""
    if isinstance(node, dict):
        yield place, node
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else ()
    for key, value in items:
        yield from dicts_in(value, f'{place}.{key}')


def _is_local(path) -> bool:
    return isinstance(path, str) and bool(path) and '://' not in path


def hub_problem(path: str) -> str | None:
    """What is wrong with the hf:// name of weights, None for right ones; nothing is downloaded."""
    from mmincubation.checkpoints.hub import CheckpointError, HubFile
    try:
        HubFile.parse(path)
    except CheckpointError as error:
        return str(error)
    return None


def _data_problems(cfg: dict, mode: str) -> Iterator[str]:
    """Paths of the datasets and metrics that the mode uses; of a missing folder, only the folder."""
    kinds = ['test'] if mode == 'test' else ['train'] + ['val'] * (cfg.get('val_cfg') is not None)
    keys = [f'{kind}_{part}' for kind in kinds for part in ('dataloader', 'evaluator')]
    gone = []
    for place, node in (found for key in keys for found in dicts_in(cfg.get(key), key)):
        for key, path in data_paths(node) if '.pipeline.' not in place else ():
            if not Path(path).exists() and not any(Path(path).is_relative_to(g) for g in gone):
                gone.append(path)
                parts = Path(path).parts
                remedy = next((text for name, text in DATA_REMEDIES.items() if name in parts), 'put the data there')
                yield f'{place}.{key}: {path} does not exist; {remedy}, or change this key'
            elif path.endswith(('.pkl', '.pickle')):
                yield f'{place}.{key}: {path} {PICKLE}'


def data_paths(node: dict) -> Iterator[tuple[str, str]]:
    """(key, path) in the dict of a dataset or metric, joined as mmengine's BaseDataset does."""
    if node.get('backend_args'):  # not on this file system
        return
    root = node.get('data_root') or ''
    prefixes = node.get('data_prefix')
    prefixes = prefixes if isinstance(prefixes, dict) else {}
    given = [('root', node.get('root')), ('data_root', root)]
    given += [(key, _is_local(path) and os.path.join(root, path)) for key, path in
              [('ann_file', node.get('ann_file')), *((f'data_prefix.{k}', v) for k, v in prefixes.items())]]
    yield from ((key, path) for key, path in given if _is_local(path))


def _weight_problems(cfg: dict) -> Iterator[str]:
    """Weights that the model or the run is to start from."""
    given = [(f'{place}.checkpoint', node.get('checkpoint')) for place, node in dicts_in(cfg.get('model'), 'model')
             if str(node.get('type')).endswith('Pretrained')]
    for place, path in [*given, ('load_from', cfg.get('load_from'))]:
        if _is_local(path) and not Path(path).exists():
            yield f'{place}: {path} does not exist; {_weights_remedy(path)}'
        if str(path).startswith('hf://') and (problem := hub_problem(path)):
            yield f'{place}: {problem}'


def _weights_remedy(path: str) -> str:
    parts = Path(path).parts
    run = parts[parts.index('work_dirs') + 1] if 'work_dirs' in parts[:-2] else ''
    makers = sorted(Path('configs').rglob(f'{run}.py')) if run else []
    return f'make it first: `python tools/train.py {makers[0]}`' if makers else 'give the path of an existing file'
