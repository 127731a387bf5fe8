"""What differs between the settings of a run and those that an earlier result of it has recorded."""
import json
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stdout
from copy import deepcopy
from functools import cache, partial
from io import StringIO
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DATASETS

from mmincubation.checkpoints.hub import is_address
from mmincubation.config.classes import training_names
from mmincubation.config.settings import recipe_of
from mmincubation.datasets.classes import numbered
from mmincubation.hashes import sha256_of
from mmincubation.probes.arguments import probe_options
from mmincubation.probes.features import image_set
from mmincubation.probes.run import data_name
from mmincubation.provenance import content_digest, dataset_name
from mmincubation.result import Result

SAID = dict(train='training', val='validation')
DIGESTS: dict[str, str | None] = {}  # of data that were read, and may be asked for several times
UNSAID = ('arch', 'prefix', 'columns')  # options of probes that results of older versions do not have
Names = dict[str, str | None]  # settings by name, as text; None is not set


def weights_differ(path: str, result: Result) -> list[str]:
    """Return a line if a run that begins with the weights `path` ('' for none) did not begin with them."""
    then, file = result['weights'], Path(path).expanduser()
    if not path:
        return ['it began with weights'] if then else []
    if is_address(path):  # whose file may be on another machine
        return [f'weights were {then["path"]}, are now {path}'] if then and then['path'] != path else []
    if then and not file.is_file():  # deleted after use, perhaps with the folders above: its own place tells it
        same = Path(then['path']).parts[-3:] == file.parts[-3:]
        return [] if same else [f'weights were {then["path"]}, are now {path}, which does not exist']
    if not then:
        return [f'its result does not say with which weights it began, they are now {path}']
    return [] if _sha256(str(file), file.stat().st_mtime_ns) == then['sha256'] else [f'{path} is another file now']


@cache  # files of gigabytes, asked for several times
def _sha256(path: str, _changed: int) -> str:
    return sha256_of(path)


def training_differs(cfg: Config, result: Result, gpus: int) -> list[str]:
    """Return a line for each difference between a training's config and its result, but that of the weights."""
    seed = (cfg.get('randomness') or {}).get('seed')
    now = _training(recipe_of(cfg, gpus), cfg.get('experiment') or {}, result['seed'] if seed is None else seed)
    then = _training(result.get('recipe') or {}, result['experiment'], result['seed'])
    then.pop('resumed with changes', None)
    found = _differ(then, now)
    for kind in SAID:
        data = (cfg.get(f'{kind}_dataloader') or {}).get('dataset')
        found += _data_differ(kind, result, result['data'][kind], data and dataset_name(data), f'{data}',
                              partial(_build, data, cfg))
    return found


def _training(recipe: dict, experiment: dict, seed: int) -> Names:
    names = {f'experiment.{key}': value and str(value) for key, value in experiment.items() if key != 'note'}
    return {**recipe, **names, 'seed': str(seed)}


def _build(dataset: dict, cfg: Config):
    """Build a data set with the numbers of classes that the run gave it."""
    scope, (names, _) = cfg.get('default_scope') or 'mmengine', training_names(cfg) or (None, '')
    return DATASETS.build(dict(numbered(deepcopy(dataset), names, scope), _scope_=scope))


def probe_differs(now: Namespace, usual: Namespace, result: Result) -> list[str]:
    """Return a line for each difference between the arguments of a probe and its result, but that of the weights.

    `usual` are the arguments of a probe that is given none.
    """
    found = _differ(result.get('options') or _older(now, usual, result), probe_options(now))
    for kind in SAID:
        then = result['data'][kind].partition(' ')[2]  # after the class of the data set
        found += _data_differ(kind, result, then, getattr(now, kind), f'{kind} {now}', partial(_images, now, kind))
    return found


def _images(args: Namespace, kind: str):
    size = 32  # any: nothing is decoded
    train = image_set(args.train, size, args.crop_pct, tuple(args.columns), args.fraction)
    return train if kind == 'train' else image_set(
        args.val, size, args.crop_pct, tuple(args.columns), classes=train.classes)


def _older(now: Namespace, usual: Namespace, result: Result) -> Names:
    """Return the options of a result of an older version; what it has not recorded is taken as it is now."""
    given, experiment = probe_options(now), result['experiment']
    pool = 'avg' if 'mean of the patch' in result['recipe'].get('feature', '') else 'token'
    shown = {**given, **{key: value for key, value in probe_options(usual).items() if key not in UNSAID},
             **result['recipe'], 'pool': json.dumps(pool),
             **{key: json.dumps(value) for key, value in {**experiment, 'seed': result['seed']}.items()}}
    then = {key: value if value == 'null' else shown[key] for key, value in given.items()}
    if experiment.get('data') == data_name(now):  # it tells the fraction too
        return then | {key: given[key] for key in ('data', 'fraction')}
    return then | {'data': json.dumps(experiment.get('data'))}


def _differ(then: Names, now: Names) -> list[str]:
    def said(value: str | None) -> str:
        return 'not set' if value in (None, 'null') else value[:40]

    return [f'{key} was {said(then.get(key))}, is now {said(now.get(key))}'
            for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]


def _data_differ(kind: str, result: Result, then: str | None, now: str | None, key: str, build: Callable) -> list[str]:
    """Return a line if a data set has another name, that of its place, and does not have the same content there.

    `build` makes the data set that `key` names.
    """
    digest = result['data'].get(f'{kind}_content')
    same = then == now or then and now and digest and _digest_of(key, build) == digest
    return [] if same else [f'{SAID[kind]} data were {then}, are now {now}']


def _digest_of(key: str, build: Callable) -> str | None:
    """Return the digest of a data set's content; None of data that are not there, or are wrong in any way."""
    if key not in DIGESTS:
        try:
            with redirect_stdout(StringIO()):  # what pycocotools tells
                DIGESTS[key] = content_digest(build())
        except Exception:
            DIGESTS[key] = None
    return DIGESTS[key]
