"""One list of what is wrong with a config: tools/check.py prints it, tools/train.py and tools/test.py refuse by it."""
from collections.abc import Iterator

import torch
from mmengine.config import Config

from mmincubation.errors import ConfigError

from .channels import channel_problems
from .classes import class_problems
from .counting import counting_problems
from .data_errors import policy_problems
from .hooks import experiment_problems, hook_problems, picture_problems
from .keys import data_problems, key_problems, weight_problems
from .labels import label_problems
from .map_sizes import fit_warnings
from .maps import window_warnings
from .mask_metrics import mask_metric_problems
from .models import incubation_problems, model_problems
from .old_keys import old_metainfo_problems
from .parts import part_problems
from .ranges import range_problems
from .rehearsal import rehearsal_problems
from .runtime import pixel_warnings, runtime_problems
from .scaling import scaling_problems
from .scores import score_problems
from .sections import missing_problems, section_problems
from .sharding import sharding_problems
from .strides import stride_problems
from .types import type_problems
from .windows import window_problems


def problems(cfg: Config, mode: str, ranks: int | None = None, gpu: bool | None = None, resumes: bool = False
             ) -> list[str]:
    """Find everything that would stop a run and that the config alone shows.

    The parts of a config in which nothing is wrong are built, without data and memory: see `rehearsal_problems`.

    Args:
        cfg: the config as it would run: it names its `launcher`, and options of a command have been applied.
        mode: `'train'` or `'test'`.
        ranks: the number of processes; None if that is not known.
        gpu: whether the run has GPUs; None: whether this machine has any.
        resumes: whether a checkpoint has all weights: then the files that the run began from may be gone.

    Returns:
        One line a problem, in the order in which they should be mended.
    """
    gpu = torch.cuda.is_available() if gpu is None else gpu
    found: dict[str, None] = {}  # an ordered set: phases inherit a mistake of the run
    try:
        for line in _in_order(cfg, mode, ranks, gpu):
            found.setdefault(line)
    except Exception:
        # Later checks rely on what earlier ones look at: after a problem this may be its consequence, else it is a bug.
        if not found:
            raise
    # What cannot be built because of a problem above would be said twice, in other words.
    built = [] if found else rehearsal_problems(cfg, mode)
    return list(dict.fromkeys([*found, *built, *_file_problems(cfg, mode, resumes)]))


def refuse(cfg: Config, mode: str, ranks: int | None = None, gpu: bool | None = None, resumes: bool = False) -> None:
    """Stop a run that `problems` finds something wrong with; the arguments are the same.

    Raises:
        ConfigError: one line for each problem.
    """
    if found := problems(cfg, mode, ranks, gpu, resumes):
        raise ConfigError('\n'.join(found))


def config_warnings(cfg: Config) -> list[str]:
    """Find what a training config most likely does not mean but may; one line each."""
    return [*pixel_warnings(cfg), *window_warnings(cfg), *fit_warnings(cfg)]


def _in_order(cfg: Config, mode: str, ranks: int | None, gpu: bool) -> Iterator[str]:
    settings, trains = dict(cfg.items()), mode == 'train'
    yield from missing_problems(cfg, mode)
    yield from section_problems(cfg, mode)
    yield from key_problems(cfg)
    yield from type_problems(settings)
    yield from range_problems(cfg)
    yield from old_metainfo_problems(settings)
    if trains:
        yield from counting_problems(cfg)
        yield from score_problems(cfg)
        yield from experiment_problems(cfg)
    yield from model_problems(cfg)
    yield from channel_problems(cfg)
    yield from stride_problems(cfg)
    if trains:
        yield from incubation_problems(cfg, ranks)
        yield from hook_problems(cfg)
    else:
        yield from picture_problems(cfg, ranks)
    yield from runtime_problems(cfg, mode, gpu)
    yield from label_problems(cfg, mode)
    yield from window_problems(cfg, mode)
    yield from mask_metric_problems(cfg, mode)
    if trains:
        yield from part_problems(cfg)
        yield from class_problems(cfg, mode)  # of a test when its checkpoint is known
        yield from sharding_problems(cfg)
        yield from scaling_problems(cfg)
        yield from policy_problems(cfg)


def _file_problems(cfg: Config, mode: str, resumes: bool) -> Iterator[str]:
    yield from data_problems(dict(cfg.items()), mode)
    if mode == 'train' and not resumes:  # a test loads the checkpoint that it is given
        yield from weight_problems(dict(cfg.items()))
