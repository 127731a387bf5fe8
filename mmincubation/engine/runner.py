"""Extend mmengine's Runner: a failing logger, a signal to its workers or a full disk does not break a run."""
import signal
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path

import mmengine
from mmengine import hooks
from mmengine.dist import all_gather_object, is_main_process
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import HOOKS, LOG_PROCESSORS
from mmengine.runner import LogProcessor, Runner
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend
from torch import nn
from torch.utils.data import DataLoader

from mmincubation.checkpoints import CheckpointError
from mmincubation.downstream.coco_truth import compare_all
from mmincubation.downstream.iou_metric import extend_iou_metrics
from mmincubation.errors import ConfigError, naming
from mmincubation.hooks.logs import PhaseLogProcessor
from mmincubation.hooks.runtime_info import RuntimeInfoHook
from mmincubation.provenance import peak_memory_mib
from mmincubation.recovery.checkpoint_files import write_checkpoint
from mmincubation.recovery.checkpoint_hook import CheckpointHook
from mmincubation.recovery.plateau_hook import ParamSchedulerHook
from mmincubation.recovery.preemption import SIGNALS
from mmincubation.registry import dicts_in
from mmincubation.vit import arch_of
from mmincubation.vit.sharding import FullyShard, gather_full, shard_options, sharded_groups, unwrap

from .compiling import compile_model
from .console import quiet
from .loading import mended
from .named_errors import name_batches, name_builders
from .optim import unused_keys
from .seeds import seed_of
from .sharding import take_shards

OF_WORKERS = ('persistent_workers', 'prefetch_factor', 'timeout', 'multiprocessing_context')
HOOK_REPLACEMENTS = {hooks.CheckpointHook: CheckpointHook, hooks.RuntimeInfoHook: RuntimeInfoHook,
                     hooks.ParamSchedulerHook: ParamSchedulerHook}


@name_builders
class ToolRunner(Runner):
    """Run mmengine's Runner, but save each checkpoint atomically and with a digest.

    Its loggers may fail, and its workers leave SIGTERM and SIGUSR1 to their rank.
    """
    _compiled = seed_was_drawn = False

    def set_randomness(self, seed: int | None = None, diff_rank_seed: bool = False,
                       deterministic: bool = False) -> None:
        """Seed the process as mmengine does; a seed that nobody gave is drawn once for the run and all its ranks."""
        if seed is None:
            seed, self.seed_was_drawn = seed_of(self.cfg, self.work_dir), True
            self._randomness_cfg = dict(self._randomness_cfg, seed=seed)
        super().set_randomness(seed, diff_rank_seed, deterministic)

    def build_logger(self, *args, **kwargs) -> MMLogger:
        """Build mmengine's logger; its console shows no notes before the run begins."""
        logger = super().build_logger(*args, **kwargs)
        self.silence = quiet(logger)
        return logger

    def build_visualizer(self, visualizer=None) -> Visualizer:
        """Build mmengine's visualiser; a backend that fails is named once and does not stop the run."""
        built = super().build_visualizer(visualizer)
        for name, backend in built._vis_backends.items():
            tolerate_failures(name, backend, self.logger)
        return built

    def build_model(self, model) -> nn.Module:
        """Build mmengine's model; the host does not wait while pinned batches are copied.

        mmseg's preprocessor has no argument for that, so the attribute is set on every preprocessor.
        """
        built = super().build_model(model)
        for module in built.modules():
            if isinstance(module, BaseDataPreprocessor):
                module._non_blocking = True
        return mended(built)

    def build_evaluator(self, evaluator) -> Evaluator:
        """Build mmengine's evaluator; mmseg's IoUMetric keeps numbers by class and image."""
        built = super().build_evaluator(evaluator)
        extend_iou_metrics(built)
        return built

    @staticmethod
    def build_dataloader(dataloader, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        """Build mmengine's loader; its workers begin with `start_worker`, its errors name its place in the config.

        Without workers torch refuses their settings, which are left out then.
        """
        if isinstance(dataloader, DataLoader):
            return dataloader
        if not dataloader.get('num_workers'):
            dataloader = {key: value for key, value in dataloader.items() if key not in OF_WORKERS}
        places = [node['place'] for _, node in dicts_in(dataloader['dataset'], '') if 'place' in node]
        place = places[0].partition('.')[0] if places else 'dataloader'
        with naming(place):
            loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        name_batches(loader, place)
        return loader

    def build_val_loop(self, loop):
        """Build mmengine's loop; its metrics must be about its data set."""
        return self._compared(super().build_val_loop(loop), 'val')

    def build_test_loop(self, loop):
        """Build mmengine's loop; its metrics must be about its data set."""
        return self._compared(super().build_test_loop(loop), 'test')

    def _compared(self, loop, kind: str):
        for line in compare_all(loop.dataloader.dataset, loop.evaluator, kind):
            self.logger.warning(line)
        return loop

    def build_optim_wrapper(self, optim_wrapper):
        """Build mmengine's wrapper; custom keys that match no parameter are a warning: stock configs have some."""
        paramwise = optim_wrapper.get('paramwise_cfg') if isinstance(optim_wrapper, dict) else None
        if unused := unused_keys(self.model, (paramwise or {}).get('custom_keys') or {}):
            self.logger.warning(unused)
        return super().build_optim_wrapper(optim_wrapper)

    def register_hook(self, hook, priority=None) -> None:
        """Register a hook; a plain one of HOOK_REPLACEMENTS becomes ours, which takes the same settings."""
        kind = hook.get('type') if isinstance(hook, dict) else None
        kind = HOOKS.get(kind) if isinstance(kind, str) else kind  # whatever name a config gives it
        if kind in HOOK_REPLACEMENTS:
            hook = dict(hook, type=HOOK_REPLACEMENTS[kind])
        super().register_hook(hook, priority)

    def build_log_processor(self, log_processor):
        """Put PhaseLogProcessor in the place of a plain one: curves need the iteration of each validation.

        The memory in a log line, in MiB, is the run's peak so far.
        """
        if isinstance(log_processor, dict):
            kind = log_processor.get('type', LogProcessor)
            kind = LOG_PROCESSORS.get(kind) if isinstance(kind, str) else kind
            if kind is LogProcessor:
                log_processor = dict(log_processor, type=PhaseLogProcessor)
        built = super().build_log_processor(log_processor)
        # mmengine's own resets torch's peak at each log line; `result.json` gives that of the whole run.
        built._get_max_memory = lambda runner: int(peak_memory_mib())
        return built

    def wrap_model(self, model_wrapper_cfg: dict | None, model: nn.Module) -> nn.Module:
        """Wrap the model as mmengine does, or shard it in place if the config asks for `FullyShard`."""
        options = shard_options(model_wrapper_cfg)
        if options is None or not self.distributed:
            return super().wrap_model(model_wrapper_cfg, model)
        return FullyShard(**options)(model, self.cfg.get('sync_bn'))

    def _init_model_weights(self) -> None:
        if self._resume:
            leave_out_gone(self.model)
        if not self.sharded:  # a sharded model has its first weights: it was initialised before it was sharded
            super()._init_model_weights()

    @property
    def sharded(self) -> bool:
        """Whether the model, or a submodule of it, is sharded over the ranks now."""
        return any(True for _ in sharded_groups(self.model))

    def load_checkpoint(self, filename: str, map_location='cpu', *args, **kwargs) -> dict:
        """Load a checkpoint as mmengine does; each rank takes its shards of a sharded model.

        The file is then read to the CPU, because a GPU need not hold the full tensors.
        """
        checkpoint = super().load_checkpoint(filename, 'cpu' if self.sharded else map_location, *args, **kwargs)
        if self.sharded and 'optimizer' in checkpoint and self._resume:
            checkpoint['optimizer'] = take_shards(checkpoint['optimizer'], self.optim_wrapper)
        return checkpoint

    def _maybe_compile(self, target: str) -> None:
        """Compile the blocks once, and not `target`, which mmengine would compile anew for each phase."""
        if not self._compiled:
            compile_model(self)
            self._compiled = True

    def load_or_resume(self) -> None:
        """Load or resume as mmengine does, if all ranks have found the same file.

        Raises:
            CheckpointError: the ranks have found different files.
        """
        # Ranks on nodes without a common disk would otherwise train different models.
        found = set(all_gather_object((self._resume, str(self._load_from))))
        if len(found) > 1:
            names = ', '.join(sorted(name for _, name in found))
            raise CheckpointError(f'the ranks would begin from different checkpoints: {names}; is the disk shared?')
        super().load_or_resume()

    def save_checkpoint(self, out_dir: str, filename: str, file_client_args: dict | None = None,
                        save_optimizer: bool = True, save_param_scheduler: bool = True, meta: dict | None = None,
                        by_epoch: bool = True, backend_args: dict | None = None) -> None:
        """Save what mmengine's `save_checkpoint` does with `write_checkpoint`, which copies no tensor first.

        Every rank must call it. Hooks that need all ranks add their content in `gather_checkpoint(runner,
        checkpoint)`. Then rank 0 alone calls `before_save_checkpoint` and writes the full tensors.

        Raises:
            CheckpointError: the disk is full or refuses the write, or the target is no mounted file system
                (`file_client_args`, `backend_args`).
        """
        self.call_hook('settle')  # what hooks have left on the device
        path = Path(out_dir, filename)
        if file_client_args or backend_args:
            raise CheckpointError(f'{path}: checkpoints are written to a mounted file system only')
        checkpoint = dict(meta=self._meta(meta or {}, by_epoch),
                          state_dict=gather_full(unwrap(self.model).state_dict()),
                          message_hub=self.message_hub.state_dict())
        # `gather_full` needs all ranks, so it stands before the branch of rank 0.
        if save_optimizer:
            checkpoint['optimizer'] = gather_full(self.optim_wrapper.state_dict())
        schedulers = self.param_schedulers if save_param_scheduler else None
        if isinstance(schedulers, dict):
            checkpoint['param_schedulers'] = {name: [s.state_dict() for s in own] for name, own in schedulers.items()}
        elif schedulers is not None:
            checkpoint['param_schedulers'] = [s.state_dict() for s in schedulers]
        self.call_hook('gather_checkpoint', checkpoint=checkpoint)
        if is_main_process():
            self.call_hook('before_save_checkpoint', checkpoint=checkpoint)
            write_checkpoint(path, checkpoint)
        self.call_hook('after_save_checkpoint')

    def _meta(self, given: dict, by_epoch: bool) -> dict:
        """Return the metadata of a checkpoint. Hooks save inside the step that they count, hence the + 1."""
        meta = dict(epoch=self.epoch + by_epoch, iter=self.iter + (not by_epoch))
        meta |= given | dict(cfg=self.cfg.pretty_text, seed=self.seed, experiment_name=self.experiment_name,
                             time=time.strftime('%Y%m%d_%H%M%S'), mmengine_version=mmengine.__version__)
        if (arch := arch_of(unwrap(self.model))) is not None:  # heads and epsilon leave no trace in the weights
            meta['arch'] = arch.to_dict()
        if pixels := getattr(unwrap(self.model), 'pixels', None):  # of classifiers
            meta['pixels'] = pixels
        if hasattr(self.train_dataloader.dataset, 'metainfo'):
            meta['dataset_meta'] = self.train_dataloader.dataset.metainfo
        return meta


def leave_out_gone(model: nn.Module) -> None:
    """Leave out weight files that are not there any more: a run that resumes has all weights in its checkpoint."""
    for module in model.modules():
        init = getattr(module, 'init_cfg', None)
        path = init.get('checkpoint') if isinstance(init, dict) else None
        if path and '://' not in str(path) and not Path(path).exists():
            module.is_init = True


def start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    """Start a loader worker that ignores stop signals: they must not cost the batch in flight."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if init:
        init(worker)


def tolerate_failures(name: str, backend: BaseVisBackend, logger) -> None:
    """Make the methods of a visualiser's backend warn of the first exception instead of raising it.

    Raises:
        ConfigError: when a method is called and the backend's package is not installed. That shows before training.
    """
    failed = []

    def guarded(method: Callable) -> Callable:

        @wraps(method)
        def call(*args, **kwargs):
            try:
                return method(*args, **kwargs)
            except ImportError as error:
                raise ConfigError(f'visualizer: {name} cannot be used ({error})') from error
            except Exception as error:
                if not failed:
                    logger.warning(f'{name} fails ({type(error).__name__}: {error}); training goes on, what it should '
                                   'have recorded is missing there, and further failures are not reported')
                failed.append(method.__name__)

        return call

    for method in ('add_config', 'add_graph', 'add_image', 'add_scalar', 'add_scalars', 'close'):
        setattr(backend, method, guarded(getattr(backend, method)))
