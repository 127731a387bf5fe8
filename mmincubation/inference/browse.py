"""Take the batches of a config as a step gets them: what tools/browse.py shows."""
import logging
import sys
import warnings
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from mmincubation.atomic import write_atomic
from mmincubation.config.classes import data_sets
from mmincubation.config.data_only import read_data_only
from mmincubation.config.load import load_config
from mmincubation.datasets.classification import ClsDataset
from mmincubation.datasets.labels import IGNORED
from mmincubation.engine.runner import ToolRunner
from mmincubation.errors import CheckpointError, ConfigError, clean, naming
from mmincubation.recovery.data_errors import checked_in, wrap_datasets
from mmincubation.resumable.batches import resumable_loader
from mmincubation.resumable.draws import seed_process

from .preparing import PackedInput
from .results import colours


@dataclass
class Seen:
    """Hold one image as the model gets it, with its truth.

    `pixels` (H, W, 3) uint8 RGB is the input after padding, de-normalised; `original` the file's, if that is known.
    Depending on the task, `weights` are those of classes, `boxes` (N, 4), `masks` (N, H, W) and `labels` (N,) those of
    objects, or `classes` (H, W) those of pixels. Truth with `of_file` is in pixels of the file, not of the input.
    """

    name: str
    pixels: np.ndarray
    original: np.ndarray | None
    range: tuple[float, float]  # of the normalised values
    weights: np.ndarray | None = None
    boxes: np.ndarray | None = None
    masks: np.ndarray | None = None
    labels: np.ndarray | None = None
    classes: np.ndarray | None = None
    of_file: bool = False


@dataclass
class Look:
    """Hold what a config's model sees: images, names and colours of classes, and what all images share."""

    seen: list[Seen]
    names: tuple[str, ...]
    palette: np.ndarray
    ignored: int
    facts: dict[str, object] = field(default_factory=dict)


def main(args: Namespace) -> int:
    """Run the command of tools/browse.py; return 0, or 2 after one line on stderr."""
    from .browse_page import to_html
    out = args.out or Path('work_dirs') / Path(args.config).stem / f'browse_{args.split}.html'
    warnings.simplefilter('ignore')  # of the MM packages, about their own names
    logging.disable(logging.INFO)
    read_data_only()
    try:
        if args.num < 1:
            raise ConfigError(f'--num {args.num}: give 1 or more')
        if args.seed is not None and not 0 <= args.seed < 2**32:
            raise ConfigError(f'--seed {args.seed}: give a number from 0 to {2**32 - 1}')
        if out.is_dir() or out.suffix != '.html':
            raise ConfigError(f'--out {out}: give the name of a file that ends in .html')
        look = look_at(load_config(args.config), args.split, args.num, args.seed)
        write_atomic(out, to_html(look, Path(args.config).name).encode())
    except (ConfigError, CheckpointError, OSError) as error:
        print('\n'.join(f'error: {clean(line)}' for line in str(error).splitlines()), file=sys.stderr)
        return 2
    print(f'{len(look.seen)} images, see {out}')
    return 0


def look_at(cfg: Config, split: str, num: int, seed: int | None = None) -> Look:
    """Return the first `num` images of a split, `'train'` or `'val'`, as the model gets them.

    Of training they are those of a run's first steps with this seed (default: the config's, else 0) on one device.

    Raises:
        ConfigError: the config has no such data, or they cannot be used.
    """
    if missing := [key for key in ('model', f'{split}_dataloader') if not isinstance(cfg.get(key), dict)]:
        raise ConfigError(f'{cfg.filename}: it has no {", ".join(missing)}, which say what the model sees')
    init_default_scope(cfg.get('default_scope') or 'mmengine')
    seed = (cfg.get('randomness') or {}).get('seed') or 0 if seed is None else seed
    settings = preprocessing(cfg)
    with naming('model.data_preprocessor'):
        prepare = MODELS.build(dict(settings))
    loader = _loader(cfg, split, seed)
    names = tuple(loader.dataset.metainfo.get('classes') or ())
    ignored = getattr(loader.dataset, 'ignore_index', IGNORED)
    look = Look([], names, colours(loader.dataset.metainfo.get('palette'), len(names)), ignored)
    steps = [str(step.get('type')) for _, dataset in islice(data_sets(cfg, split), 1)
             for step in dataset.get('pipeline') or ()]
    reader = _Originals(loader.dataset)
    for samples, inputs, truth in _batches(loader, prepare, split, seed):
        for i in range(min(len(inputs), num - len(look.seen))):
            look.seen.append(_seen(inputs[i], truth[i], samples[i], settings, prepare, reader))
            look.seen[-1].of_file = _truth_is_of_file(steps)
        if len(look.seen) == num:
            break
    look.facts = dict(split=split, seed=seed, images=len(loader.dataset), batch=len(samples), order=_order(settings),
                      **_normalisation(prepare))
    return look


def preprocessing(cfg: Config) -> dict:
    """Return the config of the model's data preprocessor, or that of its default."""
    found = cfg.model.get('data_preprocessor') or cfg.get('data_preprocessor')
    default = 'mmincubation.ClsDataPreprocessor' if 'arch' in cfg.model else 'BaseDataPreprocessor'
    return found or dict(type=default)


def _loader(cfg: Config, split: str, seed: int):
    """Return the loader of a run, without workers; of training with the run's draws."""
    place = f'{split}_dataloader'
    stand_in = SimpleNamespace(cfg=cfg, work_dir=None, **{f'_{place}': dict(cfg[place], num_workers=0)})
    with naming(place):
        wrap_datasets(stand_in, split)
        loader = ToolRunner.build_dataloader(getattr(stand_in, f'_{place}'), seed)
        return resumable_loader(loader, seed, endless=False) if split == 'train' else loader


@torch.no_grad()
def _batches(loader, prepare, split: str, seed: int) -> Iterator[tuple]:
    """Yield the samples of a batch, the model's inputs, and labels or data samples."""
    for number, keys in enumerate(loader.batch_sampler):
        with naming(f'{split}_dataloader'):
            samples = [loader.dataset[key] for key in keys]
            batch = loader.collate_fn(samples)
        seed_process(seed, 0, number, 0)  # as the loops do on the first rank
        with naming('model.data_preprocessor'):
            data = prepare(batch, split == 'train')
        yield samples, data['inputs'], data['labels' if 'labels' in data else 'data_samples']


def _seen(inputs, truth, sample: dict, settings: dict, prepare, reader: '_Originals') -> Seen:
    values = inputs.float()
    mean, std = (_normalisation(prepare)[key] for key in ('mean', 'std'))
    raw = values if mean is None else values * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)
    pixels = raw.round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    pixels = np.ascontiguousarray(pixels if _order(settings) == 'RGB' else pixels[..., ::-1])
    name, original = reader(sample)
    seen = Seen(name, pixels, original, (float(values.min()), float(values.max())))
    if isinstance(truth, torch.Tensor):
        seen.weights = truth.numpy() if truth.ndim else np.eye(int(truth) + 1)[int(truth)]
    elif 'gt_sem_seg' in truth:
        seen.classes = truth.gt_sem_seg.data.squeeze(0).numpy()
    elif 'bboxes' in (found := truth.get('gt_instances', ())):  # not without LoadAnnotations
        boxes = getattr(found.bboxes, 'tensor', found.bboxes)
        seen.boxes, seen.labels = boxes.numpy(), found.labels.numpy()
        seen.masks = found.masks.to_ndarray().astype(bool) if 'masks' in found else None
    return seen


def _order(settings: dict) -> str:
    """Return the order of the channels that the model gets; MM data sets load BGR, ours RGB."""
    return 'RGB' if settings.get('bgr_to_rgb') or str(settings['type']).endswith('ClsDataPreprocessor') else 'BGR'


def _normalisation(prepare) -> dict:
    """Return mean and standard deviation of the channels, None where nothing is normalised."""
    if not getattr(prepare, '_enable_normalize', hasattr(prepare, 'mean')):
        return dict(mean=None, std=None)
    return {key: getattr(prepare, key).flatten().tolist() for key in ('mean', 'std')}


def _truth_is_of_file(steps: list[str]) -> bool:
    """Return whether a pipeline, as those of validations do, reads the truth after the last step that resizes."""
    kinds = [step.rpartition('.')[2] for step in steps]
    sizing = [i for i, kind in enumerate(kinds) if 'Resize' in kind]
    return 'LoadAnnotations' in kinds and bool(sizing) and kinds.index('LoadAnnotations') > max(sizing)


class _Originals:
    """Read the file of a sample, as it is before all transforms; of several classification sets the file is unknown."""

    def __init__(self, dataset):
        leaves = [checked.dataset for checked in checked_in(dataset)]
        self.leaf = leaves[0] if len(leaves) == 1 else None
        self.reader = PackedInput([dict(type='mmcv.LoadImageFromFile')])

    def __call__(self, sample: dict) -> tuple[str, np.ndarray | None]:
        """Return the name, and the pixels (H, W, 3) uint8 RGB or None."""
        if 'data_samples' in sample:
            path = sample['data_samples'].metainfo.get('img_path')
            return (path, self.reader.read(path)) if path else ('', None)
        if not isinstance(self.leaf, ClsDataset):
            return '', None
        index = int(sample['index'])
        return self.leaf.name(index), self.leaf.read(index).permute(1, 2, 0).numpy()
