"""`FullyShard` in the tools: whole parameters in validation, and shards of a checkpoint's optimiser."""
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmincubation.vit.sharding import reshard, shard_optimizer_state, unshard


class ShardingHook(Hook):
    """Validation with whole parameters: ranks may have different numbers of batches, and none may wait for others."""
    priority = 'VERY_HIGH'

    def before_val_epoch(self, runner) -> None:
        """Gather."""
        unshard(runner.model)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Spread again."""
        reshard(runner.model)


def take_parts(state: dict, wrapper: OptimWrapper | OptimWrapperDict) -> dict:
    """A checkpoint's `optimizer` with this rank's parts, as the run's optimisers take it."""
    if isinstance(wrapper, OptimWrapperDict):
        return {name: shard_optimizer_state(part, wrapper[name].optimizer) for name, part in state.items()}
    return shard_optimizer_state(state, wrapper.optimizer)
