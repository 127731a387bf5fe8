"""The learning rate and the batch size that it was chosen for."""
from collections.abc import Iterator

from mmengine.config import Config

from .types import optim_wrappers


def accumulation(cfg: Config) -> int:
    """Iterations of which the gradients are added before a step."""
    return (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def images_per_step(cfg: Config, ranks: int) -> int:
    """Images between two steps of the optimiser, over all ranks."""
    return (cfg.train_dataloader.get('batch_size') or 1) * ranks * accumulation(cfg)


def scaling_problems(cfg: Config) -> Iterator[str]:
    """What keeps `auto_scale_lr` from being right where it is on.

    mmengine scales the learning rate to the batch of one iteration, however many of them an update accumulates.
    """
    scale = cfg.get('auto_scale_lr') or {}
    if not scale.get('enable'):
        return
    if 'base_batch_size' not in scale:
        yield 'auto_scale_lr.base_batch_size is missing: add it, or drop --auto-scale-lr'
    for place, wrapper in optim_wrappers(cfg):
        if (counts := wrapper.get('accumulative_counts', 1)) != 1:
            yield f'{place}.accumulative_counts={counts}: auto_scale_lr would not see it; drop --auto-scale-lr and ' \
                  f'set {place}.optimizer.lr for {counts} x batch_size x ranks images'


def batch_warnings(cfg: Config, ranks: int) -> list[str]:
    """A line if an update sees another number of images than the learning rate is for, and nothing scales it."""
    scale = cfg.get('auto_scale_lr') or {}
    batch = images_per_step(cfg, ranks)
    base = scale.get('base_batch_size', batch)
    return [] if scale.get('enable') or batch == base else [
        f'the learning rate is for batches of {base} images, this run makes batches of {batch}: --auto-scale-lr scales '
        'it']
