"""The Runner of the tools: mmengine's, which neither a failing logger nor a signal to its workers brings down."""
import signal
from collections.abc import Callable
from functools import partial, wraps

from mmengine.runner import Runner
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend
from torch.utils.data import DataLoader

from .config_check import ConfigError
from .preemption import SIGNALS


class ToolRunner(Runner):
    """mmengine's Runner with loggers that may fail, and workers that leave SIGTERM and SIGUSR1 to their rank."""

    def build_visualizer(self, visualizer=None) -> Visualizer:
        """As in mmengine; backends that fail are named once and never stop the run."""
        built = super().build_visualizer(visualizer)
        for name, backend in built._vis_backends.items():
            let_fail(name, backend, self.logger)
        return built

    @staticmethod
    def build_dataloader(dataloader, seed: int | None = None, diff_rank_seed: bool = False) -> DataLoader:
        """As in mmengine; see `start_worker`."""
        loader = Runner.build_dataloader(dataloader, seed, diff_rank_seed)
        loader.worker_init_fn = partial(start_worker, loader.worker_init_fn)
        return loader


def start_worker(init: Callable[[int], None] | None, worker: int) -> None:
    """Begin a worker: a signal to the whole process group must not cost the batch in flight."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if init:
        init(worker)


def let_fail(name: str, backend: BaseVisBackend, logger) -> None:
    """Make the methods of a visualiser's backend warn of the first exception instead of raising.

    Raises:
        ConfigError: when called, its package is not installed: that shows before training, and is no accident.
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
