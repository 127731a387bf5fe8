"""The suite of weight files: each in the standard recipe of its size, on each task."""
import re
from argparse import Namespace
from pathlib import Path

from mmincubation.checkpoints import CheckpointError, changed, inspect_weights
from mmincubation.checkpoints.hub import is_address
from mmincubation.checkpoints.inspection import WeightsInfo
from mmincubation.checkpoints.pixels import Pixels, near_imagenet, stated_pixels
from mmincubation.config.load import load_config
from mmincubation.errors import ConfigError
from mmincubation.probes.result import names_of
from mmincubation.probes.run import file_name
from mmincubation.vit import ARCHS, Arch

from .runs import ROOT, Suite, make_suite
from .timm_weights import TIMM, fetch_timm, timm_arch, timm_pixels

SIZES = dict(vit_b='vit_base', vit_l='vit_large', vit_h='vit_huge')
TASKS = dict(coco='configs/coco/maskrcnn_{}_e2e.py', ade20k='configs/ade20k/upernet_{}_e2e.py', probe='')
DATA = dict(coco='data/coco', ade20k='data/ade/ADEChallengeData2016', probe='data/imagenet')
OF_THE_TASK = ('num_classes', 'global_pool')  # fields that the recipes set, not the file
PATCH = dict(patch_size=16)  # that of all recipes, with the grid of positions of the file


def suite_of(args: Namespace, fetch: bool) -> Suite:
    """Return the suite of the weights `args.what`.

    Args:
        args: what, tasks, seeds, model, data, gpus and work_dir, as in tools/suite.py.
        fetch: whether timm may download.

    Raises:
        ConfigError: a task, a size, a name or a number of seeds is wrong.
        CheckpointError: a file is no ViT that these tools read.
    """
    work_dir, data, entries = Path(args.work_dir or 'work_dirs/suite'), _data(args.data or []), []
    tasks = _tasks(','.join(TASKS) if args.tasks is None else args.tasks)
    seeds = 1 if args.seeds is None else args.seeds
    if seeds < 1:
        raise ConfigError(f'--seeds {seeds}: give 1 or more')
    for name, weights, arch, pixels in _named(args.what, work_dir, fetch):
        for task in tasks:
            if task == 'probe':
                entries.append(dict(name=f'{file_name(name)}_probe', weights=weights, probe=dict(
                    train=f'{data[task]}/train', val=f'{data[task]}/val', method=name)))
                continue
            size = _size(args.model, arch, weights)
            options = {'experiment.method': name, **_batch_options(TASKS[task].format(size), args.gpus),
                       **_arch_options(size, arch), **_pixel_options(pixels), **_data_options(task, data[task])}
            entries.append(dict(name=f'{file_name(name)}_{task}', config=TASKS[task].format(size), weights=weights,
                                options=options, seeds=seeds))
    return make_suite(work_dir, entries)


def _tasks(text: str) -> list[str]:
    tasks = list(dict.fromkeys(text.split(',')))
    for task in tasks:
        if task not in TASKS:
            raise ConfigError(f'--tasks {text}: {task!r} is no task; give some of {",".join(TASKS)}')
    return tasks


def _data(words: list[str]) -> dict[str, str]:
    given = dict(word.partition('=')[::2] for word in words)
    for task, folder in given.items():
        if task not in TASKS or not folder:
            raise ConfigError(f'--data {task}: write TASK=DIR, the task one of {", ".join(TASKS)}')
    return DATA | given


def _named(words: list[str], work_dir: Path, fetch: bool) -> list[tuple[str, str, Arch, Pixels | None]]:
    """Return the method name, the file, the shape and the stated pixels of each word, FILE or NAME=FILE."""
    found: dict[str, tuple[str, str, Arch, Pixels | None]] = {}
    for word in words:
        given, sign, path = word.partition('=')
        if not sign or not re.fullmatch(r'[\w.+ -]+', given) or Path(word).exists():
            if sign and Path(path).is_file() and not Path(word).exists():
                raise ConfigError(f'{word}: {given!r} is no name: write letters, digits, spaces, or any of . _ + -')
            given, path = '', word
        if path.startswith(TIMM):
            name, arch = path.removeprefix(TIMM), timm_arch(path)
            pixels = timm_pixels(path)
            path = fetch_timm(path, work_dir / 'weights', fetch)
        else:
            info = _inspect(path)
            arch = _shape(info, path)
            name, pixels = names_of(path, info.sha256, arch).method, stated_pixels(path)
        name = given or name
        if (key := file_name(name)) in found:
            raise ConfigError(f'{found[key][1]} and {path} would both be called {name}: write NAME={path}')
        found[key] = name, path, arch, pixels
    return list(found.values())


def _inspect(path: str) -> WeightsInfo:
    if not is_address(path) and not Path(path).expanduser().exists():
        raise ConfigError(f'{path} does not exist: give a weight file, timm:NAME, or one suite file (.py)')
    try:
        return inspect_weights(path)
    except (KeyError, TypeError, ValueError, OSError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f'{path}: cannot be read as weights ({error})') from error


def _shape(info: WeightsInfo, path: str) -> Arch:
    try:
        return Arch.parse(info.arch)
    except ValueError as error:  # heads, of an unusual width
        raise CheckpointError(f'{path}: does not show its whole shape; tools/convert.py --arch num_heads=N writes a '
                              'file that does') from error


def _size(given: str | None, arch: Arch, weights: str) -> str:
    """Return vit_b, vit_l or vit_h, by the width and the depth of the file."""
    found = next((size for size, name in SIZES.items()
                  if (ARCHS[name].embed_dim, ARCHS[name].depth) == (arch.embed_dim, arch.depth)), None)
    if given and given != found:
        raise ConfigError(f'--model {given}: {weights} has width {arch.embed_dim} and depth {arch.depth}'
                          + f', it is {found}' * bool(found) + '; leave --model out')
    if not found:
        raise ConfigError(f'{weights}: width {arch.embed_dim} and depth {arch.depth}, for which there is no standard '
                          'recipe (vit_b, vit_l, vit_h); take --tasks probe, or a suite file with a config of yours')
    return found


def _arch_options(size: str, arch: Arch) -> dict:
    """Return options for what the file has otherwise than the ViT of this size."""
    usual, own = (changed(shape.to_dict(), PATCH) for shape in (ARCHS[SIZES[size]], arch))
    other = {key: value for key, value in own.items() if key not in OF_THE_TASK and value != usual[key]}
    named = dict(name=SIZES[size], patch_size=own['patch_size'], img_size=own['img_size'])
    return {'model.backbone.arch': named | other} if other else {}


def _pixel_options(pixels: Pixels | None) -> dict:
    """Return options for the mean and the std that the weights want, where they are not those of the recipes."""
    if pixels is None or near_imagenet(pixels.mean, pixels.std):
        return {}
    return {'model.data_preprocessor.mean': pixels.mean, 'model.data_preprocessor.std': pixels.std}


def _batch_options(config: str, gpus: int) -> dict:
    """Return the option that keeps the recipe's batch on this number of GPUs."""
    batch = load_config(config).auto_scale_lr.base_batch_size
    if batch % gpus:
        raise ConfigError(f'--gpus {gpus}: the batch of {batch} images of {config} cannot be divided among them')
    return {'train_dataloader.batch_size': batch // gpus}


def _data_options(task: str, root: str) -> dict:
    if root == DATA[task]:
        return {}
    options = {f'{split}_dataloader.dataset.data_root': root for split in ('train', 'val', 'test')}
    if task == 'coco':
        options |= {f'{split}_evaluator.ann_file': f'{root}/annotations/instances_val2017.json'
                    for split in ('val', 'test')}
    return options


def require_recipes() -> None:
    """Refuse to look for the recipes in another folder than the repository's."""
    if not Path('configs').is_dir():
        raise ConfigError(f'the recipes are configs/... in {ROOT}: run the command there')
