"""`model_wrapper_cfg=dict(type='mmincubation.FullyShard')`: large models on many devices; docs/guides/sharding.md."""
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.model.utils import convert_sync_batchnorm
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn

from mmincubation.models.sharding import make_parts, make_whole, shard, shard_options, take_optimizer_parts
from mmincubation.registry import MODEL_WRAPPERS

from .config_check import ConfigError
from .config_types import optim_wrappers


@MODEL_WRAPPERS.register_module()
class FullyShard:
    """Spreads parameters, gradients and optimiser state over the ranks, in place of DistributedDataParallel's copies.

    For its argument see `models.sharding.shard`. Of an incubation only fine-tuning is spread; alone, and in
    tools/test.py, nothing is.
    """

    def __init__(self, reshard_after_forward: bool = True):
        self.reshard_after_forward = reshard_after_forward

    def __call__(self, model: nn.Module, sync_bn: str | None = None) -> nn.Module:
        """The model, on this rank's device, with its first weights, and spread."""
        model = model.to(get_device())
        if sync_bn:
            model = convert_sync_batchnorm(model, sync_bn)
        if hasattr(model, 'set_phase'):  # its loop spreads what a phase trains
            return model
        if hasattr(model, 'init_weights'):
            model.init_weights()
        for tensor in model.state_dict().values():
            broadcast(tensor)
        try:
            return shard(model, self.reshard_after_forward)
        except ValueError as error:
            raise ConfigError(f'model_wrapper_cfg: {error}; leave FullyShard out') from error


class ShardingHook(Hook):
    """Validation with whole parameters: ranks may have different numbers of batches, and none may wait for others."""
    priority = 'VERY_HIGH'

    def before_val_epoch(self, runner) -> None:
        """Gather."""
        make_whole(runner.model)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Spread again."""
        make_parts(runner.model)


def check_sharding(cfg: Config) -> None:
    """Find what cannot work together with it, before anything is built.

    Raises:
        ConfigError: one line for each mistake.
    """
    options = shard_options(cfg.get('model_wrapper_cfg'))
    if options is None:
        return
    problems, value = [], options.get('reshard_after_forward', True)
    if not isinstance(value, bool):
        problems.append(f'model_wrapper_cfg.reshard_after_forward={value!r}: give True or False')
    for i, hook in enumerate(cfg.get('custom_hooks') or []):
        if str(hook.get('type')).endswith('EMAHook'):
            problems.append(f'custom_hooks.{i}: an EMAHook copies the whole model, which FullyShard spreads over the '
                            'ranks: leave out one of them')
    for place, wrapper in optim_wrappers(cfg):
        if str(wrapper.get('type')).endswith('AmpOptimWrapper'):
            problems.append(f'{place}.type: AmpOptimWrapper scales the loss by what one rank sees, FullyShard spreads '
                            "the gradients: write type='mmincubation.AutocastOptimWrapper' (bfloat16)")
    if cfg.get('find_unused_parameters'):
        problems.append('find_unused_parameters: FullyShard needs gradients of all parameters on all ranks; leave '
                        'out one of them')
    if problems:
        raise ConfigError('\n'.join(problems))


def take_parts(state: dict, wrapper: OptimWrapper | OptimWrapperDict) -> dict:
    """A checkpoint's `optimizer` with this rank's parts, as the run's optimisers take it."""
    if isinstance(wrapper, OptimWrapperDict):
        return {name: take_optimizer_parts(part, wrapper[name].optimizer) for name, part in state.items()}
    return take_optimizer_parts(state, wrapper.optimizer)
