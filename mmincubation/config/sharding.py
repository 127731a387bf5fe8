"""What cannot work together with `FullyShard`."""
from collections.abc import Iterator

from mmengine.config import Config
from mmengine.hooks import EMAHook

from mmincubation.vit.sharding import shard_options

from .hooks import hooks_of
from .types import optim_wrappers


def sharding_problems(cfg: Config) -> Iterator[str]:
    """One line for each setting that `FullyShard` cannot work with, or that it does not take."""
    options = shard_options(cfg.get('model_wrapper_cfg'))
    if options is None:
        return
    value = options.get('reshard_after_forward', True)
    if not isinstance(value, bool):
        yield f'model_wrapper_cfg.reshard_after_forward={value!r}: give True or False'
    for place, _, _ in hooks_of(cfg, EMAHook):
        yield f'{place}: an EMAHook copies the whole model, which FullyShard spreads over the ranks: leave out one ' \
              'of them'
    for place, wrapper in optim_wrappers(cfg):
        if str(wrapper.get('type')).endswith('AmpOptimWrapper'):
            yield f'{place}.type: AmpOptimWrapper scales the loss by what one rank sees, FullyShard spreads the ' \
                  "gradients: write type='mmincubation.AutocastOptimWrapper' (bfloat16)"
    if cfg.get('find_unused_parameters'):
        yield 'find_unused_parameters: FullyShard needs gradients of all parameters on all ranks; leave out one of them'
