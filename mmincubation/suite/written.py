"""The weight files that a training writes, for runs that begin with them."""
from pathlib import Path

from mmengine.config import Config

from mmincubation.config.hooks import hooks_of
from mmincubation.config.models import division_of, is_incubation
from mmincubation.config.signatures import resolve
from mmincubation.errors import ConfigError
from mmincubation.hooks import WeightsHook
from mmincubation.incubation.phases import FINETUNE, phase_names, read_phases, select_phases

ALONE = 'e2e'  # what a training without phases calls its weights
HOOK = "custom_hooks=[dict(type='mmincubation.WeightsHook')]"


def last_weights(cfg: Config, folder: Path) -> Path:
    """Return the file of the whole ViT at the end of a training in `folder`.

    Raises:
        ConfigError: the training writes none.
    """
    files = written_weights(cfg, folder)
    last = FINETUNE if is_incubation(cfg) else ALONE
    if last not in files:
        raise ConfigError(f'that run does not fine-tune, its phases are {", ".join(files)}: give it epochs in '
                          'train_cfg.phases.finetune')
    return files[last]


def written_weights(cfg: Config, folder: Path) -> dict[str, Path]:
    """Return the file that a training in `folder` writes at the end of each phase, by the name of the phase.

    Raises:
        ConfigError: it writes none, or its phases are wrong.
    """
    model = resolve(str((cfg.get('model') or {}).get('type')), cfg.get('default_scope') or 'mmengine')
    if model and not any(hasattr(cls, 'export') for _, cls in model):
        raise ConfigError(f'that run trains a {cfg.model.type}, and such weights begin no other run: give the name '
                          'of a run that trains a classifier, or a file')
    if not any(hooks_of(cfg, WeightsHook)):
        raise ConfigError(f'that run writes no weights, it has no WeightsHook: give its config {HOOK}')
    loop = cfg.train_cfg
    names = _phases(cfg) if is_incubation(cfg) else [ALONE]
    return {name: Path(loop.get('weights_dir') or folder / 'weights') / f'{name}_last.safetensors' for name in names}


def all_names(files: dict[str, Path]) -> set[str]:
    """Return the names of all files of a training that writes these: also the best of each phase, and the assembled."""
    names = {f'{name}_{which}.safetensors' for name in files for which in ('last', 'best')}
    return names | {'assembled.safetensors'} if FINETUNE in files else names


def _phases(cfg: Config) -> list[str]:
    loop = cfg.train_cfg
    try:
        modules = len(division_of(cfg.model))
        every = read_phases(loop.phases, modules, loop.get('mode', 'sequential'))
        trained = [sub.name for phase in select_phases(every, loop.get('phase')) for sub in phase.subphases or [phase]]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(str(error)) from None
    return [name for name in phase_names(modules) if name in trained]
