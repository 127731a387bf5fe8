"""What a run is set to, and whether an earlier result is that of this run."""
from argparse import Namespace
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass

from mmengine.config import Config

from mmincubation.checkpoints import CheckpointError
from mmincubation.checkpoints.pixels import stated_pixels
from mmincubation.config.auto_arch import asking, settle_archs
from mmincubation.config.load import load_config
from mmincubation.engine.options import apply_options
from mmincubation.errors import ConfigError, clean
from mmincubation.probes.run import settle_pixels
from mmincubation.recovery.checkpoint_files import checkpoints_of, newest_complete
from mmincubation.recovery.fingerprint import require_same_run
from mmincubation.registry import dicts_in, pretrained_of
from mmincubation.result import ResultError, read_result
from mmincubation.resumable import make_resumable

from .differences import probe_differs, training_differs, weights_differ
from .runs import Run, Suite, probe_arguments
from .written import last_weights

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
                weights = self._written_by(self.suite.runs[weights], run)
            self._known[run.name] = self._read(run, weights) if run.config else Setting(None, {}, weights)
        return self._known[run.name]

    def _written_by(self, maker: Run, run: Run) -> str:
        cfg = self.of(maker).cfg
        if cfg is None:
            raise ConfigError(f'{maker.name}: is no training, so no run can begin with its weights')
        try:
            return str(last_weights(cfg, maker.folder))
        except ConfigError as error:
            raise ConfigError(f'{run.name}: weights={maker.name!r}: {error}') from None

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
        with suppress(CheckpointError):
            self.settle(run)
        for path in run.results:
            try:
                result = read_result(path)
            except ResultError as error:
                return OTHER, str(error)
            found += weights_differ(weight_file_of(setting), result)
            found += (probe_differs(*_settled(run, setting.weights), result) if run.probe
                      else training_differs(setting.cfg, result, self.gpus))
        return (OTHER, clean('; '.join(dict.fromkeys(found[:SHOWN])))) if found else (FINISHED, '')

    def settle(self, run: Run) -> None:
        """Put what it is into the place of `arch='auto'` in the config of a run, as the training does.

        Raises:
            CheckpointError: the weights that say it are not there yet, or do not say it.
        """
        cfg = self.of(run).cfg
        if cfg is not None and asking(cfg):
            settle_archs(cfg, next(iter(checkpoints_of(run.folder)), None))

    def unlike_checkpoint(self, run: Run) -> str:
        """Return in one line which settings keep a training from its folder's checkpoint; '' if none.

        Raises:
            CheckpointError: its checkpoints, or the weights that say its architecture, cannot be read.
        """
        try:
            last, _ = newest_complete(run.folder)
            if last is None:
                return ''
            self.settle(run)
            cfg = deepcopy(self.of(run).cfg)
            cfg.resume, cfg.load_from = True, str(last)
            require_same_run(cfg, self.gpus, False)
        except ConfigError as error:
            differ = [line.strip() for line in str(error).splitlines()[1:] if not line.strip().startswith('(')]
            return (f'{run.folder} holds an unfinished run of other settings ({"; ".join(differ[:SHOWN])}): undo these '
                    'changes, move it away, delete it, or give the run another name')
        return ''


def _settled(run: Run, weights: str) -> tuple[Namespace, Namespace]:
    """Return `probe_arguments` with the mean and the std that a probe of these weights would take."""
    found, stated = probe_arguments(run), stated_pixels(weights)
    for args in found:
        settle_pixels(args, stated)
    return found


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
    named = [pretrained_of(node.get('init_cfg')) or node.get('pretrained')  # its old name, in stock backbones
             for _, node in dicts_in(setting.cfg.get('model'), 'model')]
    # `load_from` is loaded last, into the whole model.
    return next((path for path in [setting.cfg.get('load_from'), *named] if path and isinstance(path, str)), '')
