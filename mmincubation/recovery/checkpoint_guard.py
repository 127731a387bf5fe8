"""Refuse checkpoints that do not match the model."""
from mmengine.hooks import Hook

from mmincubation import provenance
from mmincubation.checkpoints import require_fit
from mmincubation.registry import HOOKS
from mmincubation.vit.sharding import unwrap

from .load_from import select_weights

REPORT = 'load_from_report'  # in a checkpoint: what the run began from


@HOOKS.register_module()
class CheckpointGuard(Hook):
    """Check each checkpoint before the Runner uses it, in `load_from` and in resuming; the tools add it to each run.

    mmengine executes the config text in a checkpoint that it resumes from, and loads whatever tensors happen to match.
    This hook removes the text, and refuses a checkpoint that does not match the model, on every rank. What `load_from`
    covers goes to the log. As the model's `load_report`, what the run began from goes into result.json, also of a run
    that is resumed when that file is gone.
    """
    priority = 'HIGHEST'

    def __init__(self):
        self.report: dict | None = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Remove the config text; raise CheckpointError if the weights do not match the model.

        It has the highest priority, so it runs before mmengine or another hook reads the checkpoint.
        """
        if isinstance(meta := checkpoint.get('meta', {}), dict):
            meta.pop('config', None)
        model = unwrap(runner.model)
        if runner._resume:
            require_fit(model, checkpoint.get('state_dict', checkpoint), 'the checkpoint to load')
            self.report = checkpoint.get(REPORT)
        else:
            classes = (getattr(runner.train_dataloader.dataset, 'metainfo', None) or {}).get('classes')
            self.report = select_weights(model, checkpoint, runner.cfg, classes)
            runner.logger.info(f'load_from: {self.report["path"]}: {self.report["coverage"]}')
        if self.report is not None:
            model.load_report = self.report

    def before_train(self, runner) -> None:
        """Note what the run begins from, once: files are large, and may be deleted or replaced while it trains."""
        model = unwrap(runner.model)
        self.report = self.report or provenance.loaded_weights(model)
        if self.report is not None:
            model.load_report = self.report

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Put into the checkpoint what the run began from."""
        checkpoint[REPORT] = self.report
