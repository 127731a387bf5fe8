"""mmengine's training loops, resumable: a killed and resumed run gives the same results as an uninterrupted one."""
from mmengine.dist import get_rank, get_world_size
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals

from mmincubation.registry import LOOPS
from mmincubation.vit.sharding import shard_like, unwrap

from .batches import resumable_loader
from .draws import seed_process
from .protocol import BaseHook, LoopProtocol


def make_resumable(train_cfg: dict) -> None:
    """Replace one of mmengine's training loops, by whatever name, in `train_cfg` by its resumable form, in place."""
    stock = 'EpochBasedTrainLoop' if train_cfg.get('by_epoch', True) else 'IterBasedTrainLoop'
    kind = train_cfg.get('type', stock)
    kind = LOOPS.get(kind) if isinstance(kind, str) else kind
    if exact := {EpochBasedTrainLoop: 'EpochLoop', IterBasedTrainLoop: 'IterLoop'}.get(kind):
        train_cfg.pop('by_epoch', None)
        train_cfg['type'] = f'mmincubation.{exact}'


class PositionHook(BaseHook):
    """Store a loop's position, and gradients that are not applied yet, in mmengine's checkpoints, and restore them."""
    priority = 'VERY_HIGH'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the position and accumulated gradients; `meta` has the epoch and iteration that come next."""
        checkpoint['position'] = runner.train_loop.position(checkpoint['meta'])
        if get_world_size() == 1:  # other ranks' gradients are not here; mmengine warns of it when it resumes
            waiting = {name: p.grad for name, p in runner.model.named_parameters() if p.grad is not None}
            checkpoint['gradients'] = {name: grad.cpu() for name, grad in waiting.items()}

    def gather_checkpoint(self, runner, checkpoint: dict) -> None:
        """Let the loop add what rank 0 does not have. Every rank calls it before rank 0 saves."""
        runner.train_loop.gather(checkpoint)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Restore the position, before the Runner restores the optimiser: the loop may have to build that first."""
        if runner._resume:
            runner.train_loop.restore(checkpoint)
            waiting = checkpoint.get('gradients', {})
            for name, parameter in runner.model.named_parameters():
                grad = waiting.get(name)
                parameter.grad = grad if grad is None else shard_like(grad.to(parameter.device), parameter)


class _ResumableLoop(LoopProtocol):
    """The common code of the loops: every iteration draws from (seed, epoch, iteration, rank)."""

    def _make_resumable(self, endless: bool = False) -> None:
        prepare = getattr(unwrap(self.runner.model), 'data_preprocessor', None)
        pairs = getattr(prepare, 'mixup', None) is not None
        self.dataloader = resumable_loader(self.dataloader, self.runner.seed, endless, pairs)
        self._checkpoint = None
        self.runner.register_hook(PositionHook())

    def _begin_iter(self, epoch: int, iteration: int) -> None:
        """Seed this process. After a checkpoint wrap the model in a new DDP, as a resumed run does.

        DDP changes its buckets after its first step, and so, with three or more ranks, the order of its sums.
        """
        saved = self.runner.message_hub.get_info('last_ckpt')  # CheckpointHook notes it on every rank
        if saved != self._checkpoint:
            self._renew_ddp()
        self._checkpoint = saved
        seed_process(self.runner.seed, epoch, iteration, get_rank())

    def _renew_ddp(self) -> None:
        runner = self.runner
        if type(runner.model) is MMDistributedDataParallel:
            runner.model = runner.wrap_model(runner.cfg.get('model_wrapper_cfg'), runner.model.module)
            runner._maybe_compile('train_step')  # `wrap_model` returns a new, uncompiled wrapper


@LOOPS.register_module()
class EpochLoop(_ResumableLoop, EpochBasedTrainLoop):
    """mmengine's loop over epochs, which resumes at the batch after the checkpoint without loading earlier batches.

    It takes the same arguments. The augmentation of a sample is drawn from (seed, epoch, its place in the epoch), all
    other draws from (seed, epoch, iteration, rank). A checkpoint at the end of an epoch is written before the
    validation, so a run that resumes from it begins with the validation.
    """
    resumes_within_epoch = True

    def __init__(self, runner, dataloader, **kwargs):
        super().__init__(runner, dataloader, **kwargs)
        self._began = 0  # the iteration at which this epoch began
        self._make_resumable()

    @property
    def draw_epoch(self) -> int:
        """The number of the epoch in the keys of all draws."""
        return self._epoch

    @property
    def epoch_iters_done(self) -> int:
        """The number of batches of this epoch that are done."""
        return self._iter - self._began

    def position(self, meta: dict) -> dict:
        """Return what `restore` needs of a checkpoint that continues at the epoch and iteration of `meta`."""
        return dict(began=self._began if meta['epoch'] == self._epoch else meta['iter'])

    def restore(self, checkpoint: dict) -> None:
        """Go to a checkpoint's position. Those of mmengine's own loops have none: they are written between epochs."""
        self._began = checkpoint.get('position', {}).get('began', checkpoint['meta']['iter'])

    def run(self):
        """Train and validate what is left."""
        self.runner.call_hook('before_train')
        if self._epoch and not self.epoch_iters_done:  # resumed after an epoch whose validation may not have run
            self._validate()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate()
        self.runner.call_hook('after_train')
        return self.runner.model

    def _validate(self) -> None:
        self._decide_current_val_interval()
        due = self._epoch % self.val_interval == 0 or self._epoch == self._max_epochs
        if due and self._epoch >= self.val_begin and self.runner.val_loop is not None:
            self.runner.val_loop.run()

    def run_epoch(self) -> None:
        """Train what is left of an epoch."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        # The indices in the hooks and the draws count from the start of the epoch, also after a resume.
        self.dataloader.batch_sampler.seek(self.draw_epoch, self.epoch_iters_done)
        for idx, batch in enumerate(self.dataloader, self.epoch_iters_done):
            self.run_iter(idx, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
        self._began = self._iter

    def run_iter(self, idx: int, data_batch) -> None:
        """Train on one batch, between the hooks."""
        self._begin_iter(self.draw_epoch, idx)
        self.runner.call_hook('before_train_iter', batch_idx=idx, data_batch=data_batch)
        outputs = self.step(idx, data_batch)
        self.runner.call_hook('after_train_iter', batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1

    def step(self, idx: int, data_batch) -> dict:
        """Let the model train on one batch: forward, loss, backward, step; return the losses by name."""
        return self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)


@LOOPS.register_module()
class IterLoop(_ResumableLoop, IterBasedTrainLoop):
    """mmengine's loop over iterations, which resumes at iteration N without loading N batches; see `EpochLoop`.

    It takes the same arguments. When a sampler ends, its next epoch begins with the same workers.
    """

    def __init__(self, runner, dataloader, max_iters: int, val_begin: int = 1, val_interval: int = 1000,
                 dynamic_intervals: list[tuple[int, int]] | None = None):
        # Not mmengine's __init__: it starts the workers, which load the first batches, before the position is restored.
        BaseLoop.__init__(self, runner, dataloader)
        self._max_iters, self._max_epochs, self._iter, self._epoch = int(max_iters), 1, 0, 0
        self.val_begin, self.val_interval, self.stop_training = val_begin, val_interval, False
        self.runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval, dynamic_intervals)
        self._make_resumable(endless=True)

    def run(self):
        """Train and validate what is left."""
        self.runner.call_hook('before_train')
        self.runner.call_hook('before_train_epoch')
        if self._iter:
            self._validate()
        self.dataloader.batch_sampler.seek(0, self._iter)
        batches = iter(self.dataloader) if self._iter < self._max_iters else iter(())
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self.run_iter(next(batches))
            self._validate()
        self.runner.call_hook('after_train_epoch')
        self.runner.call_hook('after_train')
        return self.runner.model

    def run_iter(self, data_batch) -> None:
        """Train on one batch, after seeding."""
        self._begin_iter(0, self._iter)
        super().run_iter(data_batch)

    def _validate(self) -> None:
        self._decide_current_val_interval()
        due = self._iter % self.val_interval == 0 or self._iter == self._max_iters
        if due and self._iter >= self.val_begin and self.runner.val_loop is not None:
            self.runner.val_loop.run()
