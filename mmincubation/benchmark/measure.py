"""Measure each phase of a config; steps of ours and of the plain reference take turns."""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import all_reduce, get_world_size

from mmincubation.config.auto_arch import settle_archs
from mmincubation.config.load import load_config
from mmincubation.config.models import division_of, is_incubation
from mmincubation.config.sections import missing_problems
from mmincubation.errors import ConfigError
from mmincubation.vit.spec import Arch, Division

from . import loading, memory
from .batches import image_size, synthetic
from .flops import CALLS, count_flops, seconds, summary
from .steps import Phases, build, plain
from .units import of_phase

WARM_UP = dict(cpu=1, cuda=5)  # beside the steps in which FLOPs and memory are counted
TURN = 0.5  # seconds
DENSE_ON_CPU = dict(mmdet=(1, 2), mmseg=(2, 3))  # images of a step, and what their sides are divided by


@dataclass(frozen=True)
class Options:
    """Say what to measure.

    - `phases`: their names, None for all.
    - `batch_size`: images of a step and rank, None for the config's, or for what a CPU can do.
    - `baseline`: whether to measure the reference too.
    - `repeats`: the number of timed turns.
    - `data`: a folder of JPEGs for the data wait, None to leave it out; `workers` is the number of loader workers.
    """
    device: torch.device
    phases: list[str] | None = None
    batch_size: int | None = None
    baseline: bool = False
    repeats: int = 5
    data: Path | None = None
    workers: int = 0


def measure(path: str, options: Options, say: Callable[[str], None]) -> list[dict]:
    """Return all rows of one config, and call `say` with a line for each. Raises as `prepare` does."""
    cfg = load_config(path)
    settle_archs(cfg)
    return measure_config(path, cfg, options, say)


def measure_config(path: str, cfg: Config, options: Options, say: Callable[[str], None]) -> list[dict]:
    """Do the same for a config that is loaded; `path` names it."""
    phases = Phases(cfg)
    names = _select(path, phases.names, options.phases)
    count, size = batch_of(cfg, options)
    batch = synthetic(cfg, size, count)
    models = dict(ours=build(cfg, options.device))
    if options.baseline:
        models['reference'] = build(plain(cfg) if 'backbone' in cfg.model else cfg, options.device)
    rows = []
    for name in names:
        steps = dict(ours=phases.ours(models['ours'], name, batch))
        if options.baseline and name != 'modules':  # the public code has no such mode: see `ratios`
            steps['reference'] = phases.reference(models['reference'], name, batch)
        for variant, found in _time(cfg, steps, options, count).items():
            rows.append(dict(
                config=str(path), phase=name, variant=variant, parts=phases.parts(name),
                precision=_precision(cfg, variant, steps[variant]), images=count * get_world_size(), size=list(size),
                units=_units(cfg, name, variant), **found))
            say(f'{path} {name} {variant}: {found["median"]:,.0f} ms')
    return rows


def prepare(path: str, options: Options) -> None:
    """Find the mistakes that can be known before anything is built.

    Raises:
        ConfigError: the config is no training's, a phase is unknown, or the images have no size.
    """
    cfg = load_config(path)
    if missing := list(missing_problems(cfg, 'train')):
        raise ConfigError(f'{path}: {missing[0]}')
    settle_archs(cfg)
    batch_of(cfg, options)
    _select(path, Phases(cfg).names, options.phases)


def batch_of(cfg: Config, options: Options) -> tuple[int, tuple[int, int]]:
    """Return the images of a step and their size; on a CPU, where steps are slow, dense tasks have smaller images."""
    count, shrink = cfg.train_dataloader.batch_size, 1
    if options.device.type == 'cpu':
        count, shrink = DENSE_ON_CPU.get(cfg.get('default_scope'), (8, 1))
    try:
        size = image_size(cfg, shrink)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    if (cfg.model.get('data_preprocessor') or {}).get('size'):
        # The preprocessor pads to its own size, which must shrink with the images.
        cfg.model.data_preprocessor.size = size
    return options.batch_size or count, size


def _select(path: str, names: list[str], wanted: list[str] | None) -> list[str]:
    """Return the phases that were asked for; runs without phases, `train`, are always measured."""
    if wanted and names != ['train'] and (unknown := [name for name in wanted if name not in names]):
        raise ConfigError(f'--phases {" ".join(unknown)}: {path} has {", ".join(names)}')
    return [name for name in names if not wanted or name in wanted or name == 'train']


def _time(cfg: Config, steps: dict, options: Options, count: int) -> dict[str, dict]:
    """Return the measurements of each step; the steps take turns: A B, B A, ..."""
    device, found = options.device, {}
    for variant, step in steps.items():
        found[variant] = dict(flops=count_flops(step), peak_bytes=_largest(memory.peak(step), device))
        for _ in range(WARM_UP[device.type]):
            step()
    calls = {variant: _calls(step, device) for variant, step in steps.items()}
    samples = {variant: [] for variant in steps}
    for i in range(options.repeats):
        # The order alternates, so that a device that grows warm slows both alike.
        for variant in list(steps)[::-1 if i % 2 else 1]:
            samples[variant].append(1000 * seconds(steps[variant], device, calls[variant]))
    for variant, step in steps.items():
        found[variant] |= dict(summary(samples[variant]), samples=samples[variant],
                               data_wait_ms=_wait(cfg, step, options, count))
    return found


def _calls(step, device: torch.device) -> int:
    """Return how many steps make a turn: on a GPU about half a second, and at most ten."""
    most = CALLS[device.type]
    return most if most == 1 else max(2, min(most, round(TURN / seconds(step, device, 1))))


def _wait(cfg: Config, step, options: Options, count: int) -> float | None:
    # The JPEGs have labels of classes only.
    if options.data is None or 'backbone' in cfg.model:
        return None
    return loading.wait(step, loading.batches(cfg, options.data, count, options.workers), options.repeats)


def _largest(value: int, device: torch.device) -> int:
    """Return the largest value of all ranks."""
    tensor = torch.tensor(value, device=device)
    all_reduce(tensor, 'max')
    return int(tensor)


def _precision(cfg: Config, variant: str, step) -> str:
    """Return `bfloat16` if the ViT computes in it in a step, else `float32`."""
    fast = variant == 'ours' and (step.autocasts or (cfg.model.get('backbone') or {}).get('bf16'))
    return 'bfloat16' if fast else 'float32'


def _units(cfg: Config, phase: str, variant: str) -> int | None:
    """Return the block-forwards of an image; None for models that are no classifiers."""
    if 'backbone' in cfg.model:
        return None
    division = division_of(cfg.model) if is_incubation(cfg) else Division((Arch.parse(cfg.model.arch).depth, ))
    return of_phase(division, phase, variant == 'reference').total


def ratios(rows: list[dict]) -> list[dict]:
    """Return the ratio of images a second, ours / reference, by config and phase.

    It is taken turn by turn, so that other load on the machine meets both. Training all modules, jointly or one after
    another, is compared with the reference's modules one after another.
    """
    taken = {(row['config'], row['phase'], row['variant']): row['samples'] for row in rows}
    found = []
    for row in rows:
        if row['variant'] == 'ours':
            references = [taken.get((row['config'], part, 'reference')) for part in row['parts']]
            if all(references):
                found.append(_ratio(row['config'], row['phase'], references, [row['samples']]))
    for config in dict.fromkeys(row['config'] for row in rows):
        names = [phase for c, phase, variant in taken if (c, variant) == (config, 'reference') and 'module_' in phase]
        if len(names) > 1:
            both = [[taken[config, name, variant] for name in names] for variant in ('reference', 'ours')]
            found.append(_ratio(config, ' + '.join(names), *both))
    return found


def _ratio(config: str, phase: str, reference: list[list[float]], ours: list[list[float]]) -> dict:
    """Return the summary of the ratios of sums over phases, turn by turn."""
    turns = zip(zip(*reference, strict=True), zip(*ours, strict=True), strict=True)
    return dict(config=config, phase=phase, **summary([sum(a) / sum(b) for a, b in turns]))
