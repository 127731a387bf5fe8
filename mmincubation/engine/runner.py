"""The Runner of tools/train.py."""
import time
from pathlib import Path

import mmengine
from mmengine import hooks
from mmengine.dist import all_gather_object, master_only

from mmincubation.checkpoints import CheckpointError

from .checkpoint_hook import CheckpointHook
from .checkpointing import write_checkpoint
from .cost import unwrap

PLAIN = ('CheckpointHook', 'mmengine.CheckpointHook', hooks.CheckpointHook)


class SafeRunner(mmengine.runner.Runner):
    """mmengine's Runner, which loses no checkpoint: whatever saves through it saves atomically, with a digest."""

    def register_hook(self, hook, priority=None) -> None:
        """As mmengine's; a plain CheckpointHook becomes ours, which takes the same settings."""
        if isinstance(hook, dict) and hook.get('type') in PLAIN:
            hook = dict(hook, type=CheckpointHook)
        super().register_hook(hook, priority)

    def load_or_resume(self) -> None:
        """As mmengine's, if all ranks have found the same file."""
        found = set(all_gather_object((self._resume, str(self._load_from))))
        if len(found) > 1:
            names = ', '.join(sorted(name for _, name in found))
            raise CheckpointError(f'the ranks would begin from different checkpoints: {names}; is the disk shared?')
        super().load_or_resume()

    @master_only
    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: dict | None = None,
                        save_optimizer: bool = True, save_param_scheduler: bool = True, meta: dict | None = None,
                        by_epoch: bool = True, backend_args: dict | None = None) -> None:
        """Write what mmengine's `save_checkpoint` does, by `write_checkpoint`: no tensor is copied first.

        Raises:
            CheckpointError: the disk is full or refuses, or is none (`file_client_args`, `backend_args`).
        """
        path = Path(out_dir, filename)
        if file_client_args or backend_args:
            raise CheckpointError(f'{path}: checkpoints are written to a mounted file system only')
        checkpoint = dict(meta=self._meta(meta or {}, by_epoch), state_dict=unwrap(self.model).state_dict(),
                          message_hub=self.message_hub.state_dict())
        if save_optimizer:
            checkpoint['optimizer'] = self.optim_wrapper.state_dict()
        schedulers = self.param_schedulers if save_param_scheduler else None
        if isinstance(schedulers, dict):
            checkpoint['param_schedulers'] = {name: [s.state_dict() for s in own] for name, own in schedulers.items()}
        elif schedulers is not None:
            checkpoint['param_schedulers'] = [s.state_dict() for s in schedulers]
        self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
        write_checkpoint(path, checkpoint)

    def _meta(self, given: dict, by_epoch: bool) -> dict:
        """What a checkpoint says of itself. Hooks save inside the step that they count, hence the + 1."""
        meta = dict(epoch=self.epoch + by_epoch, iter=self.iter + (not by_epoch))
        meta |= given | dict(cfg=self.cfg.pretty_text, seed=self.seed, experiment_name=self.experiment_name,
                             time=time.strftime('%Y%m%d_%H%M%S'), mmengine_version=mmengine.__version__)
        if hasattr(self.train_dataloader.dataset, 'metainfo'):
            meta['dataset_meta'] = self.train_dataloader.dataset.metainfo
        return meta
