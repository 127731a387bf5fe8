"""The hooks of every run, which no config needs to name."""
from argparse import Namespace

from mmincubation.hooks.monitors import MonitorGuard
from mmincubation.hooks.per_image import PerImageHook
from mmincubation.hooks.result import add_result_hooks
from mmincubation.recovery.checkpoint_guard import CheckpointGuard
from mmincubation.recovery.data_errors import DataErrorsHook
from mmincubation.recovery.divergence import FiniteGuard
from mmincubation.recovery.fingerprint import FingerprintHook
from mmincubation.recovery.hook_states import HookStates
from mmincubation.recovery.preemption import PreemptionHook, Request

from .console import SummaryHook
from .sharding import ShardingHook


def guard_training(runner, args: Namespace, request: Request, timeout: float) -> None:
    """Register the hooks of a training run; `timeout` are the seconds that ranks wait for each other."""
    add_result_hooks(runner)
    for hook in (CheckpointGuard(), FingerprintHook(args.allow_changed), FiniteGuard(args.skip_nonfinite),
                 PreemptionHook(request, timeout), DataErrorsHook(), ShardingHook(), MonitorGuard(), HookStates(),
                 SummaryHook()):
        runner.register_hook(hook)


def guard_test(runner, request: Request, timeout: float) -> None:
    """Register the hooks of an evaluation."""
    for hook in (PreemptionHook(request, timeout), PerImageHook(), SummaryHook()):
        runner.register_hook(hook)
