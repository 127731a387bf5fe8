"""Architecture, phases and experiment of a config."""
from mmengine.config import Config

from mmincubation.errors import ConfigError
from mmincubation.incubation.phases import read_phases, select_phases, valid_mode
from mmincubation.incubation.recipe import valid_recipe
from mmincubation.incubation.start import valid_start
from mmincubation.result import require_experiment
from mmincubation.vit import Arch, Division


def check_models(cfg: Config, ranks: int | None = None) -> None:
    """Read architecture, phases and experiment once, so that their errors come before anything is built.

    `ranks` is the number of processes, None if that is not known.

    Raises:
        ConfigError: one of them is wrong.
    """
    try:
        if 'experiment' in cfg or any('ResultHook' in hook.type for hook in cfg.get('custom_hooks') or []):
            require_experiment(cfg.get('experiment'))
        for model in (cfg.model, cfg.model.get('backbone') or {}):
            if str(model.get('type')).startswith('mmincubation.') and 'arch' in model:
                Arch.parse(model.arch)
        if is_incubation(cfg):
            if any(hook.type == 'EMAHook' for hook in cfg.get('custom_hooks') or []):
                raise ValueError("custom_hooks: mmengine's EMAHook would average over the phases of an incubation; "
                                 "write type='mmincubation.EMAHook', which averages fine-tuning")
            loop = cfg.train_cfg
            valid_recipe(loop.get('recipe', 'clean'))
            valid_start(loop.get('start', 'random'))
            division = Division.of(Arch.parse(cfg.model.arch).depth, cfg.model.get('modules', 4))
            mode = valid_mode(loop.get('mode', 'sequential'), len(division), ranks or len(division))
            select_phases(read_phases(loop.phases, len(division), mode), loop.get('phase'))
    except (ValueError, TypeError) as error:
        raise ConfigError(str(error)) from error


def is_incubation(cfg: Config) -> bool:
    return (cfg.get('train_cfg') or {}).get('type', '').endswith('IncubationLoop')
