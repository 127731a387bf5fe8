"""Top-level keys, data paths and weights of a config."""
import os
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path

from mmengine.config import Config

from mmincubation.checkpoints import CheckpointError
from mmincubation.checkpoints.hub import SCHEME, HubFile
from mmincubation.registry import dicts_in

from .load import names_in
from .old_keys import successor
from .sections import kinds_of
from .signatures import nearest
from .types import runner_keys

# By a folder in the path of the data that is missing.
DATA_REMEDIES = {
    'demo': 'run `python tools/make_demo_data.py`',
    'imagenet': 'prepare it as docs/tasks/imagenet.md says',
    'cifar100': '''run `python -c "from datasets import load_dataset as l; '''
                '''l('uoft-cs/cifar100').save_to_disk('data/cifar100')"`''',
}
PICKLE = 'is a pickle, which runs code as it is read: refused, nothing was executed; write what it holds as JSON'


def key_problems(cfg: Config) -> Iterator[str]:
    """Top-level keys that nothing reads.

    Valid is what the Runner or the tools read, and any helper variable, that is a name which the config's files assign
    AND read, or one that begins with `_`. So a misspelt key is an error however far it is from a valid one, because
    nothing reads it, and so is a new key from `--cfg-options`. Only near misses of valid keys are errors where names
    cannot be traced (yaml, json), where nothing is left to read (a config that a run dumped holds values only), and in
    the configs inside the MM packages.
    """
    valid, names = runner_keys(), names_in(cfg.text or '')
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


def _nobody_reads(key: str, cfg: Config, valid: set[str]) -> str:
    """The nearest key may also be one level deeper: `max_epochs` belongs into `train_cfg`."""
    inner = {name: f'{top}.{name}' for top in valid if isinstance(cfg.get(top), dict) for name in cfg[top]}
    hint = nearest(key, inner | {name: name for name in valid})
    return f'{key}: nothing reads this top-level key' + (
        successor(key) or hint or ': remove it, or begin its name with _')


def data_problems(cfg: dict, mode: str) -> Iterator[str]:
    """Paths of the datasets and metrics that the mode uses and that do not exist; of a missing folder, only the folder.

    Pickles among them are refused.
    """
    kinds = kinds_of(cfg, mode)
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


def _is_local(path) -> bool:
    return isinstance(path, str) and bool(path) and '://' not in path


def weight_problems(cfg: dict) -> Iterator[str]:
    """Weights that the model or the run is to start from and that do not exist, or whose hf:// name is wrong.

    Also a `load_from_fresh` that is no list of layers, or has no `load_from` beside it.
    """
    fresh = cfg.get('load_from_fresh')
    if fresh is not None and not (isinstance(fresh, list | tuple) and all(isinstance(name, str) for name in fresh)):
        yield f"load_from_fresh={fresh!r:.60}: give a list of layers, such as ['decode_head.conv_seg']"
    elif fresh and not cfg.get('load_from'):
        yield 'load_from_fresh: there is no load_from whose layers these are; give one, or leave this out'
    given = [(f'{place}.checkpoint', node.get('checkpoint')) for place, node in dicts_in(cfg.get('model'), 'model')
             if str(node.get('type')).endswith('Pretrained')]
    for place, path in [*given, ('load_from', cfg.get('load_from'))]:
        if _is_local(path) and not Path(path).exists():
            yield f'{place}: {path} does not exist; {_weights_remedy(path)}'
        if str(path).startswith(SCHEME):
            try:
                HubFile.parse(path)  # downloads nothing
            except CheckpointError as error:
                yield f'{place}: {error}'


def _weights_remedy(path: str) -> str:
    parts = Path(path).parts
    run = parts[parts.index('work_dirs') + 1] if 'work_dirs' in parts[:-2] else ''
    makers = sorted(Path('configs').rglob(f'{run}.py')) if run else []
    return f'make it first: `python tools/train.py {makers[0]}`' if makers else 'give the path of an existing file'
