"""`FullyShard` in the tools: whole parameters in validation, and shards of a checkpoint's optimiser."""
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmincubation.vit.sharding import make_parts, make_whole, take_optimizer_parts


class ShardingHook(Hook):
    """Validation with whole parameters: ranks may have different numbers of batches, and none may wait for others."""
    priority = 'VERY_HIGH'

    def before_val_epoch(self, runner) -> None:
        """Gather."""
        make_whole(runner.model)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Spread again."""
        make_parts(runner.model)


def take_shards(state: dict, wrapper: OptimWrapper | OptimWrapperDict) -> dict:
    """A checkpoint's `optimizer` with this rank's parts, as the run's optimisers take it."""
    if isinstance(wrapper, OptimWrapperDict):
        return {name: take_optimizer_parts(part, wrapper[name].optimizer) for name, part in state.items()}
    return take_optimizer_parts(state, wrapper.optimizer)
