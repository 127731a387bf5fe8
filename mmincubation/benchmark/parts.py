"""Measure where one training step of a detector or segmentor spends its time and memory, part by part."""
import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.autograd.graph import register_multi_grad_hook
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._pytree import tree_leaves

# Part: the method that is it. `a / b` lies within `a`; what a model does not have is left out.
PARTS = {
    'backbone': 'backbone.forward',
    'neck': 'neck.forward',
    'rpn head': 'rpn_head.loss_and_predict',
    'rpn head / targets': 'rpn_head.get_targets',
    'rpn head / proposals': 'rpn_head.predict_by_feat',
    'roi head': 'roi_head.loss',
    'roi head / boxes': 'roi_head.bbox_loss',
    'roi head / masks': 'roi_head.mask_loss',
    'roi head / masks / targets': 'roi_head.mask_head.get_targets',
    'decode head': 'decode_head.loss',
    'decode head / loss': 'decode_head.loss_by_feat',
    'auxiliary head': 'auxiliary_head.loss',
}
MARK = 'part: '


@dataclass
class Step:
    """Run one training step of the Runner on a model, its optimiser wrapper and a batch as the loader gives it.

    `batch` makes a new batch for each step, because the preprocessor changes the labels (it pads masks). After a call,
    `clock` has the seconds of the parts.
    """
    model: nn.Module
    wrapper: object
    batch: Callable[[], dict]

    def __call__(self) -> None:
        self.clock = Clock(next(self.model.parameters()).device)
        data, span = self.batch(), self.clock.span
        with ExitStack() as stack:
            for part, path in PARTS.items():
                stack.enter_context(_watched(self.model, part, path, self.clock))
            with span('preprocessor'):
                data = self.model.data_preprocessor(data, True)
            with self.wrapper.optim_context(self.model):
                loss, _ = self.model.parse_losses(self.model(**data, mode='loss'))
            with span('backward'):
                self.clock.start_backward()
                self.wrapper.backward(loss)
                self.clock.mark('backbone')
            with span('optimiser'):
                self.wrapper.step()
                self.wrapper.zero_grad()


class Clock:
    """Measure the seconds of each part of a step; wait for the device at the begin and the end of a part."""

    def __init__(self, device: torch.device):
        self.device, self.seconds, self._last = device, {}, 0.

    def now(self) -> float:
        """Wait until the device has finished its work; return the time in seconds."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)
        return perf_counter()

    @contextmanager
    def span(self, part: str) -> Iterator[None]:
        """Add the time inside the context to the part, and name it in a profile."""
        start = self.now()
        with record_function(MARK + part):
            yield
            end = self.now()
        self.seconds[part] = self.seconds.get(part, 0.) + end - start

    def start_backward(self) -> None:
        """Note the start of the backward pass; it begins with the heads."""
        self._last = self.now()

    def mark(self, part: str) -> None:
        """Note the end of the backward pass through the part."""
        end = self.now()
        with record_function(f'{MARK}backward / {part}'):
            pass
        self.seconds[f'backward / {part}'] = end - self._last
        self._last = end


@contextmanager
def _watched(model: nn.Module, part: str, path: str, clock: Clock) -> Iterator[None]:
    """Time the method while the context is open.

    The backward pass of what is above a feature map ends when the map has its gradient.
    """
    *owners, name = path.split('.')
    owner = reduce(lambda module, child: getattr(module, child, None), owners, model)
    if owner is None:
        yield
        return
    method = getattr(owner, name)

    def timed(*args, **kwargs):
        with clock.span(part):
            result = method(*args, **kwargs)
        if part in ('backbone', 'neck'):
            above = 'heads' if part == 'neck' or not getattr(model, 'with_neck', False) else 'neck'
            register_multi_grad_hook([t for t in tree_leaves(result) if _learns(t)], lambda _: clock.mark(above))
        return result

    # An instance's attribute hides the method of its class; afterwards it goes, or an earlier one returns.
    before = vars(owner).get(name)
    setattr(owner, name, timed)
    try:
        yield
    finally:
        delattr(owner, name) if before is None else setattr(owner, name, before)


def _learns(value) -> bool:
    return isinstance(value, Tensor) and value.requires_grad


def measure(steps: dict[str, Step], runs: int = 5) -> dict[str, dict[str, dict]]:
    """Return `seconds`, `peak` and `kept` of each part of each step; the part `step` is all of it.

    - `seconds`: the median of `runs` runs, the steps in turn, after a warm-up.
    - `peak`: the bytes above those at the begin of the step: activations and gradients.
    - `kept`: the bytes there at the end of the part and not at its begin.

    The bytes are those of torch's allocator on the model's device, from one profiled run. What numpy allocates is
    missing.
    """
    taken = {name: [] for name in steps}
    for i in range(runs + 1):
        for name, step in steps.items():
            start = perf_counter()
            step()
            # The first run is a warm-up.
            if i:
                taken[name].append({**step.clock.seconds, 'step': step.clock.now() - start})
    memory = {name: _memory(step) for name, step in steps.items()}
    return {name: {part: dict(seconds=statistics.median(run[part] for run in all_runs), **memory[name][part])
                   for part in all_runs[0]} for name, all_runs in taken.items()}


def _memory(step: Step) -> dict[str, dict[str, int]]:
    """Return `peak` and `kept` of each part, from the allocator events of a profile."""
    device = next(step.model.parameters()).device.type
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == 'cuda')
    with profile(activities=activities, profile_memory=True) as prof, record_function(f'{MARK}step'):
        step()
    events = sorted(prof.profiler.kineto_results.events(), key=lambda e: e.start_ns())
    changes = [e for e in events if e.name() == '[memory]' and e.device_type().name.lower() == device]
    levels = [(0, 0), *zip((e.start_ns() for e in changes), accumulate(e.nbytes() for e in changes), strict=True)]
    return {part: _during(levels, spans) for part, spans in _spans(events).items()}


def _spans(events: list) -> dict[str, list[tuple[int, int]]]:
    """Return when each part ran, as (begin, end) in nanoseconds; those of the backward pass follow each other."""
    spans = {}
    for event in events:
        if event.name().startswith(MARK) and event.device_type().name == 'CPU':
            begin = event.start_ns()
            spans.setdefault(event.name().removeprefix(MARK), []).append((begin, begin + event.duration_ns()))
    # A mark is one point in time: each part of the backward pass began where the one before ended.
    last = spans['backward'][0][0]
    for part in [part for part in spans if part.startswith('backward / ')]:  # in their order
        end = spans[part][0][1]
        spans[part], last = [(last, end)], end
    return spans


def _during(levels: list[tuple[int, int]], spans: list[tuple[int, int]]) -> dict[str, int]:
    def level(time: int) -> int:
        return next(value for at, value in reversed(levels) if at <= time)

    inside = [value for begin, end in spans for at, value in levels if begin <= at <= end]
    ends = [(level(begin), level(end)) for begin, end in spans]
    return dict(peak=max(inside + [begin for begin, _ in ends]), kept=sum(end - begin for begin, end in ends))


def table(found: dict[str, dict[str, dict]]) -> str:
    """Return the result of `measure` as a markdown table.

    It has, for each step, milliseconds, percent of the step, MiB at the peak and MiB kept.
    """
    heads = [f'{name}: {column}' for name in found for column in ('ms', '%', 'peak MiB', 'kept MiB')]
    lines = [f'| part | {" | ".join(heads)} |', '|---' * (len(heads) + 1) + '|']
    parts = dict.fromkeys(part for part in ['preprocessor', *PARTS, *(p for parts in found.values() for p in parts)])
    for part in parts:
        if any(part in rows for rows in found.values()):
            cells = [_cells(rows.get(part), rows['step']) for rows in found.values()]
            lines.append(f'| {part} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _cells(row: dict | None, step: dict) -> str:
    if row is None:
        return '- | - | - | -'
    return (f'{1e3 * row["seconds"]:.0f} | {100 * row["seconds"] / step["seconds"]:.0f} | '
            f'{row["peak"] / 2**20:.0f} | {row["kept"] / 2**20:.0f}')
