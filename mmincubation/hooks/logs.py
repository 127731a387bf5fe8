"""Name the phase of an incubation in each log line, and the iteration of each validation."""
from datetime import timedelta

from mmengine.runner import LogProcessor

from mmincubation.registry import LOG_PROCESSORS
from mmincubation.resumable.protocol import loop_protocol


@LOG_PROCESSORS.register_module()
class PhaseLogProcessor(LogProcessor):
    """Write mmengine's log lines; in a loop with phases, put the phase and its own ETA in front.

    The logged numbers get `phase/NAME`, always 1, and those of a validation `at_iter`, the iterations done. mmengine
    gives a validation its epoch alone, which stays 0 in a run by iterations. Numbers, because trackers refuse text.
    """

    def get_log_after_iter(self, runner, batch_idx: int, mode: str) -> tuple[dict, str]:
        """Return mmengine's tags and log line; prepend for example `[module_2, phase eta 0:01:30]`."""
        tag, text = super().get_log_after_iter(runner, batch_idx, mode)
        return tag | self._marks(runner), self._prefix(runner, tag.get('time') if mode == 'train' else None) + text

    def get_log_after_epoch(self, runner, batch_idx: int, mode: str, with_non_scalar: bool = False):
        """Return mmengine's tags and log line; prepend for example `[module_2]`."""
        tag, text = super().get_log_after_epoch(runner, batch_idx, mode, with_non_scalar)
        if mode == 'val':
            tag = tag | self._marks(runner) | dict(at_iter=runner.iter)
        return tag, self._prefix(runner) + text

    @staticmethod
    def _marks(runner) -> dict[str, int]:
        phase = loop_protocol(runner).phase_name
        return {} if phase is None else {f'phase/{phase}': 1}

    @staticmethod
    def _prefix(runner, seconds_an_iter: float | None = None) -> str:
        loop = loop_protocol(runner)
        phase = loop.phase_name
        if phase is None:
            return ''
        if seconds_an_iter is None:
            return f'[{phase}] '
        left = timedelta(seconds=int(seconds_an_iter * loop.phase_iters_left))
        return f'[{phase}, phase eta {left}] '
