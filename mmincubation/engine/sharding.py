"""Validate with full parameters under `FullyShard`, and shard the optimiser state of a checkpoint."""
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmincubation.vit.sharding import reshard, shard_optimizer_state, unshard


class ShardingHook(Hook):
    """Give each rank the full parameters during a validation.

    Ranks may have different numbers of batches, so no batch may need the other ranks.
    """
    priority = 'ABOVE_NORMAL'  # after FiniteGuard, whose state_dict() shards again; before EMA, weights and checkpoints

    def before_val_epoch(self, runner) -> None:
        """Gather the full parameters on each rank."""
        unshard(runner.model)

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        """Shard the parameters again."""
        reshard(runner.model)


def take_shards(state: dict, wrapper: OptimWrapper | OptimWrapperDict) -> dict:
    """Return a checkpoint's `optimizer` with this rank's shards, as the run's optimisers load it."""
    if isinstance(wrapper, OptimWrapperDict):
        return {name: shard_optimizer_state(part, wrapper[name].optimizer) for name, part in state.items()}
    return shard_optimizer_state(state, wrapper.optimizer)
