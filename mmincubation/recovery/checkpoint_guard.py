"""What a checkpoint may do to a run that loads it."""
from mmengine.hooks import Hook

from mmincubation.checkpoints import require_fit
from mmincubation.registry import HOOKS
from mmincubation.vit.sharding import unwrap


@HOOKS.register_module()
class CheckpointGuard(Hook):
    """Stands between a checkpoint and the Runner, in `load_from` and in resuming; the tools add it to every run.

    mmengine executes the config text stored in a checkpoint that it resumes from, and loads what happens to match;
    this drops the text, and refuses a checkpoint that does not match the model, on every rank.
    """
    priority = 'HIGHEST'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Called before mmengine looks at the checkpoint."""
        checkpoint.get('meta', {}).pop('config', None)
        require_fit(unwrap(runner.model), checkpoint.get('state_dict', checkpoint), 'the checkpoint to load')
