"""Refuse checkpoints that do not match the model."""
from mmengine.hooks import Hook

from mmincubation.checkpoints import require_fit
from mmincubation.registry import HOOKS
from mmincubation.vit.sharding import unwrap


@HOOKS.register_module()
class CheckpointGuard(Hook):
    """Check each checkpoint before the Runner uses it, in `load_from` and in resuming; the tools add it to each run.

    mmengine executes the config text in a checkpoint that it resumes from, and loads whatever tensors happen to match.
    This hook removes the text, and refuses a checkpoint that does not match the model, on every rank.
    """
    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remove the config text; raise CheckpointError if the weights do not match the model.

        It has the highest priority, so it runs before mmengine or another hook reads the checkpoint.
        """
        checkpoint.get('meta', {}).pop('config', None)
        require_fit(unwrap(runner.model), checkpoint.get('state_dict', checkpoint), 'the checkpoint to load')
