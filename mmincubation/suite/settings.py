"""What a run is set to, and whether an earlier result is that of this run."""
from argparse import Namespace
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmengine.config import Config

from mmincubation.config.load import load_config
from mmincubation.config.models import is_incubation
from mmincubation.config.settings import recipe_of
from mmincubation.engine.options import apply_options
from mmincubation.errors import ConfigError, clean
from mmincubation.hashes import sha256_of
from mmincubation.probes.run import data_name
from mmincubation.registry import dicts_in
from mmincubation.result import Result, ResultError, read_result
from mmincubation.resumable import make_resumable

from .runs import Run, Suite

SHOWN = 3  # differences in a message
NO_OPTIONS = dict(amp=False, auto_scale_lr=False, phase=None)
FINISHED, OTHER, OPEN = 'finished', 'other', 'open'


@dataclass(frozen=True)
class Setting:
    """The config of a training as it would run (None for other runs), its options, and its weight file or ''."""
    cfg: Config | None
    options: dict
    weights: str


class Settings:
    """The settings of the runs of a suite, each on `gpus` devices; configs are read once."""

    def __init__(self, suite: Suite, gpus: int = 1):
        self.suite, self.gpus = suite, gpus
        self._known: dict[str, Setting] = {}

    def of(self, run: Run) -> Setting:
        """Return the setting of a run.

        Raises:
            ConfigError: its config, or an option of it, is wrong.
        """
        if run.name not in self._known:
            weights = run.weights
            if weights in self.suite.runs:
                weights = self._written_by(self.suite.runs[weights])
            self._known[run.name] = self._read(run, weights) if run.config else Setting(None, {}, weights)
        return self._known[run.name]

    def _written_by(self, run: Run) -> str:
        cfg = self.of(run).cfg
        if cfg is None:
            raise ConfigError(f'{run.name}: is no training, so no run can begin with its weights')
        return str(run.folder / 'weights' / f'{"finetune" if is_incubation(cfg) else "e2e"}_last.safetensors')

    def _read(self, run: Run, weights: str) -> Setting:
        options = dict(run.options)
        if run.seed is not None:
            options['randomness.seed'] = run.seed
        try:
            if weights:
                options |= _beginning_with(weights, load_config(run.config, options))
            cfg = load_config(run.config, options)
        except ConfigError as error:
            raise ConfigError(f'{run.name}: {error}') from None
        given = Namespace(config=run.config, work_dir=str(run.folder), **NO_OPTIONS,
                          launcher='pytorch' if self.gpus > 1 else 'none')
        apply_options(cfg, given, 'train')
        make_resumable(cfg.get('train_cfg') or {})
        return Setting(cfg, options, weights)

    def judge(self, run: Run) -> tuple[str, str]:
        """Return FINISHED, OTHER or OPEN, and for OTHER what differs: its results are there, but of other settings."""
        if not run.results or not all(path.exists() for path in run.results):
            return OPEN, ''
        setting, found = self.of(run), []
        for path in run.results:
            try:
                result = read_result(path)
            except ResultError as error:
                return OTHER, str(error)
            found += _weights_differ(setting, result)
            found += _probe_differs(run, result) if run.probe else _training_differs(setting.cfg, result, self.gpus)
        return (OTHER, clean('; '.join(dict.fromkeys(found[:SHOWN])))) if found else (FINISHED, '')


def _beginning_with(weights: str, cfg: Config) -> dict:
    """Return the option that lets the backbone, or a classifier's ViT, begin with a file."""
    place = 'model.backbone' if (cfg.get('model') or {}).get('backbone') else 'model'
    owner = cfg.model.backbone if place == 'model.backbone' else cfg.get('model') or {}
    if 'init_cfg' in owner and not owner.init_cfg:  # None, into which no option reaches
        return {f'{place}.init_cfg': dict(type='Pretrained', checkpoint=weights)}
    kind = {} if owner.get('init_cfg') else {f'{place}.init_cfg.type': 'Pretrained'}
    return kind | {f'{place}.init_cfg.checkpoint': weights}


def weight_file_of(setting: Setting) -> str:
    """Return the first weight file that a run begins with, as `weights` in its result has it; '' without one."""
    if setting.cfg is None:
        return setting.weights
    files = [node['checkpoint'] for _, node in dicts_in(setting.cfg.get('model'), 'model')
             if str(node.get('type')).endswith('Pretrained') and node.get('checkpoint')]
    return next(iter([*files, setting.cfg.get('load_from') or '']))


@cache  # files of gigabytes, asked for several times
def _sha256(path: str, _changed: int) -> str:
    return sha256_of(path)


def _weights_differ(setting: Setting, result: Result) -> list[str]:
    path, then = weight_file_of(setting), (result['weights'] or {}).get('sha256')
    if not path or not Path(path).is_file():  # none, at an address, or deleted after use
        return [] if path or not then else ['it began with weights']
    return [] if _sha256(path, Path(path).stat().st_mtime_ns) == then else [f'{path} is another file now']


def _training_differs(cfg: Config, result: Result, gpus: int) -> list[str]:
    now, then = recipe_of(cfg, gpus), result.get('recipe') or {}
    then.pop('resumed with changes', None)
    names = {f'experiment.{key}': value for key, value in (cfg.get('experiment') or {}).items() if key != 'note'}
    now |= names | {'seed': str((cfg.get('randomness') or {}).get('seed', result['seed']))}
    then = {**then, **{key: result['experiment'].get(key.partition('.')[2]) for key in names},
            'seed': str(result['seed'])}
    return [f'{key} was {then.get(key, "not set"):.40}, is now {now.get(key, "not set"):.40}'
            for key in sorted(now.keys() | then.keys()) if now.get(key) != then.get(key)]


def _probe_differs(run: Run, result: Result) -> list[str]:
    given = run.probe
    named = Namespace(fraction=given.get('fraction', 1), data=given.get('data'), train=str(given['train']))
    wanted = {'data': data_name(named), **{key: given[key] for key in ('method', 'model', 'seed') if key in given},
              **{key: given[key] for key in ('train', 'val')}}
    then = {'seed': result['seed'], **result['experiment'],
            **{key: result['data'][key].partition(' ')[2] for key in ('train', 'val')}}
    found = [f'{key} was {then.get(key)}, is now {value}' for key, value in wanted.items() if then.get(key) != value]
    recipe = {key: given[key] for key in ('crop_pct', 'mean', 'std') if key in given}
    return found + [f'{key} was {result["recipe"].get(key)}, is now {value}' for key, value in recipe.items()
                    if result['recipe'].get(key, '').replace('.0', '') != str(value).replace('.0', '')]
