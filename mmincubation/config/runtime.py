"""Mistakes that would stop a run only after it has begun, some after hours: batch norm, label 0, sizes, `compile`."""
import inspect
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.config import Config

from mmincubation.checkpoints.pixels import IMAGENET, Pixels, near, near_imagenet, stated_pixels
from mmincubation.registry import dicts_in, kind_of, leaf_datasets, pretrained_of
from mmincubation.vit import Arch

from .signatures import resolve, setting

VITS = ('ViTBackbone', 'TimmViT', 'ViTClassifier')
ENDLESS = {'InfiniteSampler', 'MultiSourceSampler'}  # mmengine's, mmdet's and what is made of them


def runtime_problems(cfg: Config, mode: str, gpu: bool) -> Iterator[str]:
    """All of them; `mode` is `'train'` or `'test'`, `cfg` names its `launcher`, `gpu` says if the run has GPUs."""
    yield from zero_label_problems(cfg)
    yield from size_problems(cfg, mode)
    yield from collate_problems(cfg, mode)
    yield from endless_problems(cfg, mode)
    if mode == 'train':
        yield from effect_problems(cfg)
        yield from norm_problems(cfg, gpu)
        yield from precision_problems(cfg, gpu)
        yield from compile_problems(cfg)


def norm_problems(cfg: Config, gpu: bool) -> Iterator[str]:
    """Batch norm that cannot train here: SyncBN between CPU ranks, and statistics over a single value.

    Without a launcher the Runner makes SyncBN BN. Between ranks SyncBN has other images to average with.
    """
    alone = cfg.get('launcher', 'none') == 'none'
    settings = [(place, *(setting(node, key, cfg.get('default_scope')) for key in ('norm_cfg', 'pool_scales')))
                for place, node in dicts_in(cfg.get('model'), 'model') if isinstance(node.get('type'), str)]
    kinds = {place: norm.get('type') for place, norm, _ in settings if norm}
    synced = [f'{place}.norm_cfg.type=BN' for place, kind in kinds.items() if kind == 'SyncBN']
    if synced and not alone and not gpu:
        yield f'{synced[0].removesuffix(".type=BN")}: SyncBN needs GPUs, and the ranks of this run are on the CPU; ' \
              f'add --cfg-options {" ".join(synced)}'
    if (cfg.get('train_dataloader') or {}).get('batch_size') != 1:
        return
    for place, _, pool_scales in settings:
        if 1 in (pool_scales or ()) and (kinds.get(place) == 'BN' or alone and kinds.get(place) == 'SyncBN'):
            yield f'{place}.pool_scales: scale 1 gives BN one value per channel and image, and one is too few to ' \
                  'normalise with; set train_dataloader.batch_size=2 or more'


def endless_problems(cfg: Config, mode: str) -> Iterator[str]:
    """Samplers without an end where the data must end: in an epoch, a validation or a test."""
    loop = cfg.get('train_cfg') or {}
    counts_iters = str(loop.get('type')).endswith(('IterBasedTrainLoop', 'IterLoop')) or loop.get('by_epoch') is False
    kinds = (['val'] if counts_iters else ['train', 'val']) if mode == 'train' else ['test']
    for key in (f'{kind}_dataloader' for kind in kinds):
        sampler = (cfg.get(key) or {}).get('sampler') or {}
        found = [sampler['type']] if isinstance(sampler.get('type'), type) else [
            cls for _, cls in resolve(str(sampler.get('type')), cfg.get('default_scope') or 'mmengine')]
        if {base.__name__ for cls in found for base in cls.__mro__} & ENDLESS:
            advice = "or train_cfg=dict(type='IterBasedTrainLoop', ...)" if key.startswith('train') else 'shuffle=False'
            yield f'{key}.sampler.type={sampler["type"]}: it never ends, and this loop waits for its end; give ' \
                  f"type='DefaultSampler', {advice}"


def precision_problems(cfg: Config, gpu: bool) -> Iterator[str]:
    """mmengine's mixed precision on a CPU, which asserts that there is a GPU."""
    for place, wrapper in [('optim_wrapper', cfg.get('optim_wrapper')), *dicts_in(cfg.get('train_cfg'), 'train_cfg')]:
        name = str((wrapper or {}).get('type'))
        if not gpu and name.rpartition('.')[2] == 'AmpOptimWrapper':
            yield f'{place}.type={name} needs a GPU; ' + (
                'add --amp, which trains in bfloat16 on a CPU too' if place == 'optim_wrapper' else
                "give type='mmincubation.AutocastOptimWrapper', without loss_scale: it trains in bfloat16 on a CPU too")


def _numbers(value) -> list:
    return [v for v in value if isinstance(v, int | float)] if isinstance(value, list | tuple) else []


def pixel_warnings(cfg: Config) -> Iterator[str]:
    """A line for each preprocessor whose pixels are not those of the weights, or in 0..1, as timm writes them."""
    yield from _unlike_weights(cfg)
    for place, node in dicts_in(cfg.model, 'model'):
        mean, std = (_numbers(node.get(key)) for key in ('mean', 'std'))
        if mean and std and any(mean) and max(mean) <= 1 and max(std) <= 1:
            yield f'{place}.mean={mean} and std={std} are for pixels in 0..1, those of this run are in 0..255: ' \
                  'multiply both by 255'


def _unlike_weights(cfg: Config) -> Iterator[str]:
    """A line where a pretrained ViT gets images of another mean, std or order of colours than it was trained on."""
    own, place, scope = cfg.model.get('data_preprocessor'), 'model.data_preprocessor', cfg.get('default_scope')
    files = [pretrained_of(node.get('init_cfg')) for _, node in dicts_in(cfg.model, 'model')
             if kind_of(node) in VITS]
    if not any(files) or not isinstance(own, dict) or _normalises(cfg):
        return
    file = next(filter(None, files))
    mean, std = (_numbers(setting(own, key, scope)) for key in ('mean', 'std'))
    pixels = stated_pixels(file) or Pixels('', *IMAGENET)
    if not mean or not std:
        yield f'{place} has no mean and no std, and the ViT of {file} was trained on normalised images: give ' \
              f'mean={pixels.mean}, std={pixels.std}, bgr_to_rgb=True'
        return
    if near_imagenet(mean, std) and setting(own, 'bgr_to_rgb', scope) is False:
        yield f'{place}.bgr_to_rgb is False, and mean={mean} is in the order of RGB: give bgr_to_rgb=True'
    if pixels.source and not (near(mean, pixels.mean) and near(std, pixels.std)):
        yield f'{place} has mean={mean}, std={std}, but {pixels.source} says mean={pixels.mean}, std={pixels.std} ' \
              f'of the weights {file}: give those, with bgr_to_rgb=True where images are read as BGR'


def _normalises(cfg: Config) -> bool:
    """Return whether a step of the data normalises, and not the model."""
    return any(kind_of(step) == 'Normalize' for key in ('train', 'test')
               for _, step in dicts_in(cfg.get(f'{key}_dataloader'), key))


def size_problems(cfg: Config, mode: str) -> Iterator[str]:
    """timm's transforms of classifiers that make another size than the ViT takes."""
    if not str(cfg.model.get('type')).startswith('mmincubation.') or 'arch' not in cfg.model:
        return
    try:
        side = Arch.parse(cfg.model.arch).img_size
    except (ValueError, TypeError):  # `model_problems` says so
        return
    for place, step in timm_transforms(cfg, mode):
        size = step.get('input_size')
        if (set(size[-2:]) if isinstance(size, list | tuple) else {size}) - {side, None}:
            yield f'{place}.input_size is {size}, model.arch.img_size is {side}: make them equal'


def timm_transforms(cfg: Config, mode: str) -> Iterator[tuple[str, dict]]:
    """Yield (place, settings) of each `create_transform` of timm in the data that the mode uses."""
    for key in ('train_dataloader', 'val_dataloader') if mode == 'train' else ('test_dataloader', ):
        yield from ((place, step) for place, step in dicts_in(cfg.get(key), key)
                    if str(step.get('type')).endswith('create_transform'))


def effect_problems(cfg: Config) -> Iterator[str]:
    """Settings of timm's transforms in training that do nothing, because the model normalises, and so erases."""
    own = cfg.model.get('data_preprocessor') or {}
    for place, step in timm_transforms(cfg, 'train'):
        if not step.get('is_training') or step.get('normalize', True) and not step.get('use_prefetcher'):
            continue
        said = 'has no effect without normalisation, which is the model\'s: give model.data_preprocessor'
        if chance := step.get('re_prob'):
            yield f"{place}: re_prob={chance} {said}.erasing=dict(type='timm.data.random_erasing.RandomErasing', " \
                  f"probability={chance}, mode={step.get('re_mode', 'const')!r}, max_count={step.get('re_count', 1)})"
        for key in ('mean', 'std'):
            there, here = _numbers(own.get(key)), [255 * value for value in _numbers(step.get(key))]
            if here and there and not np.allclose(here, there, atol=.5):
                yield f'{place}: {key}={step[key]} {said}.{key}, which is {there}, for pixels in 0..255'


def collate_problems(cfg: Config, mode: str) -> Iterator[str]:
    """Dataloaders of classifiers whose batches would be lists, which is what mmengine makes where nothing is said."""
    scope = cfg.get('default_scope') or 'mmengine'
    for key in ('train_dataloader', 'val_dataloader') if mode == 'train' else ('test_dataloader', ):
        loader = cfg.get(key) or {}
        kind = str((loader.get('collate_fn') or {}).get('type', 'pseudo_collate'))
        ours = [leaf['type'] for _, leaf in leaf_datasets(loader.get('dataset') or {})
                if any(cls.__name__ in ('ImageFolder', 'HFImages') for _, cls in resolve(str(leaf.get('type')), scope))]
        if ours and kind.endswith('pseudo_collate'):
            yield f"{key}.collate_fn: {ours[0]} needs dict(type='default_collate'), which makes one tensor of the " \
                  'images of a batch'


def zero_label_problems(cfg: Config) -> Iterator[str]:
    """Datasets and the LoadAnnotations in their pipelines that disagree about reduce_zero_label.

    mmseg asserts that they agree when it reads an image: for the validation set, after the first interval of training.
    """
    scope = cfg.get('default_scope')
    for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        for place, node in dicts_in(cfg.get(key), key):
            flag = setting(node, 'reduce_zero_label', scope) if 'pipeline' in node else None
            pipelines = {f'{place}.pipeline': node.get('pipeline')}
            pipelines |= {'tta_pipeline': cfg.get('tta_pipeline')} if key == 'test_dataloader' else {}
            for where, step in (found for at, steps in pipelines.items() for found in dicts_in(steps, at)):
                given = step.get('reduce_zero_label')
                if None not in (flag, given) and given != flag:
                    yield f'{where}.reduce_zero_label is {given}, {place} ({node["type"]}) has {flag}: make them ' \
                          'equal, or drop the key here'


def compile_problems(cfg: dict) -> Iterator[str]:
    """What is wrong with the key `compile`: True, False or a dict of `torch.compile`'s options."""
    given = cfg.get('compile')
    if not isinstance(given, dict | bool | None):
        yield f'compile={given!r}: give True, False or a dict of options of torch.compile'
    valid = sorted(set(inspect.signature(torch.compile).parameters) - {'model'})
    for key in given if isinstance(given, dict) else ():
        if key not in valid:
            yield f'compile.{key}: torch.compile has no such option; it takes {", ".join(valid)}'
