"""What a recipe takes on a cluster: arithmetic from FLOPs and bytes, with every assumption a named number."""
from __future__ import annotations

from dataclasses import dataclass

from mmincubation.vit.spec import Arch, Division

from .units import (
    E2E,
    FINETUNE,
    META,
    MODULE,
    BlockFlops,
    Units,
    end_to_end,
    joint,
    module,
    parameters,
    trained_parameters,
)

IMAGES, BATCH = 1281167, 2048  # of an ImageNet epoch, of a step over all GPUs
GRADIENT = 4  # bytes: weights, and so gradients, are float32


@dataclass(frozen=True)
class Cluster:
    """GPUs in nodes. Not measured: `rate` is 40 % of an H100's dense bfloat16 peak (989 TFLOP/s); links are the
    vendors' figures, in bytes a second and direction: `inside` a node NVLink, `between` nodes 8 cards of 400 Gb/s, used
    by as many rings; `latency` is of one message.

    `least` images a GPU are needed to keep `rate`, so a step of 2048 images occupies at most 2048 / least GPUs.
    """
    gpus: int
    rate: float = 0.4 * 989e12
    node: int = 8
    inside: float = 450e9
    between: float = 8 * 50e9
    latency: float = 5e-6
    min_images: int = 16

    def all_reduce(self, size: int, ranks: int) -> float:
        """Seconds of a ring: each rank sends 2 (n - 1) / n of the bytes in 2 (n - 1) messages."""
        link = self.inside if ranks <= self.node else self.between
        return 2 * (ranks - 1) * (size / ranks / link + self.latency)


@dataclass(frozen=True)
class PhasePlan:
    """A phase on a cluster: ranks that share a batch, how many such groups, seconds of `compute` and `reduce` a step,
    bytes all-reduced, steps, and `streams`: how often each image is decoded for what the phase trains."""
    name: str
    ranks: int
    groups: int
    compute: float
    reduce: float
    size: int
    steps: int
    streams: int

    @property
    def step(self) -> float:
        """Seconds, if the all-reduce hides behind nothing; overlapped it is the larger of the two."""
        return self.compute + self.reduce

    @property
    def hours(self) -> float:
        """Of the phase."""
        return self.steps * self.step / 3600

    def images_per_node(self, node: int) -> float:
        """Images a second that a node's loaders must give."""
        return BATCH / self.ranks * min(node, self.ranks * self.groups) / self.step


def e2e_units(depth: int, epochs: int = E2E) -> int:
    """Block-forwards an image of the training set of end-to-end training."""
    return epochs * end_to_end(depth).total


def phase(cluster: Cluster, arch: Arch, name: str, parts: list[tuple[Units, int]], epochs: int,
          groups: int = 1, streams: int = 1) -> PhasePlan:
    """A phase that trains `parts` (their units and parameters) one after another on each batch; if there are `groups`,
    each trains a part of its own, and the largest decides."""
    ranks = min(cluster.gpus // groups, BATCH // cluster.min_images)
    flops = [BlockFlops.of(arch).step(units) for units, _ in parts]
    times = [value * BATCH / ranks / cluster.rate for value in flops]
    sizes = [GRADIENT * count for _, count in parts]
    reduces = [cluster.all_reduce(size, ranks) for size in sizes]
    slowest = max(range(len(parts)), key=lambda i: times[i] + reduces[i])
    compute, reduce = (times[slowest], reduces[slowest]) if groups > 1 else (sum(times), sum(reduces))
    size = sizes[slowest] if groups > 1 else sum(sizes)
    return PhasePlan(name, ranks, groups, compute, reduce, size, epochs * (IMAGES // BATCH), streams)


def plan(cluster: Cluster, arch: Arch, modules: int, mode: str) -> list[PhasePlan]:
    """The phases of the paper's recipe in a mode (`sequential`, `joint`, `parallel`), or `e2e` training."""
    if mode == 'e2e':
        return [phase(cluster, arch, 'E2E', [(end_to_end(arch.depth), parameters(arch, arch.depth))], E2E)]
    division = Division.of(arch.depth, modules)
    counts = [trained_parameters(arch, division, f'module_{i}') for i in range(modules)]
    parts = [(module(division, i), count) for i, count in enumerate(counts)]
    if mode == 'joint':
        middle = phase(cluster, arch, 'modules', [(joint(division), sum(counts))], MODULE)
    else:
        middle = phase(cluster, arch, 'modules', parts, MODULE, modules if mode == 'parallel' else 1, modules)
    meta = phase(cluster, arch, 'meta', [(end_to_end(modules), parameters(arch, modules))], META)
    finetune = phase(cluster, arch, 'finetune', [(end_to_end(arch.depth), parameters(arch, arch.depth))], FINETUNE)
    return [meta, middle, finetune]


def hours(phases: list[PhasePlan]) -> float:
    """Wall time of all."""
    return sum(part.hours for part in phases)
