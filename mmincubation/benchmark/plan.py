"""Compute the time of a recipe on a cluster from FLOPs and bytes; every assumption is a named number."""
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
    """Describe GPUs in nodes; the numbers are assumed, not measured.

    - `rate`: FLOP/s of a GPU, 40 % of an H100's dense bfloat16 peak (989 TFLOP/s).
    - `inside`: bytes a second and direction within a node, the vendor's figure for NVLink.
    - `between`: the same between nodes: 8 cards of 400 Gb/s, used by as many rings.
    - `latency`: seconds of one message.
    - `min_images`: images of a GPU and step that `rate` needs; so a step of 2048 images uses at most 2048 / min_images
      GPUs.
    """
    gpus: int
    rate: float = 0.4 * 989e12
    node: int = 8
    inside: float = 450e9
    between: float = 8 * 50e9
    latency: float = 5e-6
    min_images: int = 16

    def all_reduce(self, size: int, ranks: int) -> float:
        """Return the seconds of a ring all-reduce of `size` bytes over n ranks.

        Each rank sends 2 (n - 1) / n of the bytes in 2 (n - 1) messages.
        """
        link = self.inside if ranks <= self.node else self.between
        return 2 * (ranks - 1) * (size / ranks / link + self.latency)


@dataclass(frozen=True)
class PhasePlan:
    """Hold the plan of a phase on a cluster.

    - `ranks`: GPUs that share a batch; `groups`: how many such groups there are.
    - `compute` and `reduce`: seconds of a step; `size`: bytes that are all-reduced in it; `steps`: their number.
    - `streams`: how often each image is decoded for what the phase trains.
    """
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
        """The seconds of a step if nothing overlaps; with overlap it is the larger of `compute` and `reduce`."""
        return self.compute + self.reduce

    @property
    def hours(self) -> float:
        """The hours of the phase."""
        return self.steps * self.step / 3600

    def images_per_node(self, node: int) -> float:
        """Return the images a second that a node's loaders must give; `node` is its number of GPUs."""
        return BATCH / self.ranks * min(node, self.ranks * self.groups) / self.step


def e2e_units(depth: int, epochs: int = E2E) -> int:
    """Return the block-forwards, for each image of the training set, of end-to-end training."""
    return epochs * end_to_end(depth).total


def plan_phase(cluster: Cluster, arch: Arch, name: str, trained: list[tuple[Units, int]], epochs: int,
               groups: int = 1, streams: int = 1) -> PhasePlan:
    """Plan a phase that trains all of `trained` (units and parameters of each) one after another on each batch.

    With several `groups`, each group trains one of them, and the slowest decides.
    """
    # With fewer images a rank would not reach `rate`, so the other GPUs are left out.
    ranks = min(cluster.gpus // groups, BATCH // cluster.min_images)
    flops = [BlockFlops.of(arch).step(units) for units, _ in trained]
    times = [value * BATCH / ranks / cluster.rate for value in flops]
    sizes = [GRADIENT * count for _, count in trained]
    reduces = [cluster.all_reduce(size, ranks) for size in sizes]
    slowest = max(range(len(trained)), key=lambda i: times[i] + reduces[i])
    compute, reduce = (times[slowest], reduces[slowest]) if groups > 1 else (sum(times), sum(reduces))
    size = sizes[slowest] if groups > 1 else sum(sizes)
    return PhasePlan(name, ranks, groups, compute, reduce, size, epochs * (IMAGES // BATCH), streams)


def plan(cluster: Cluster, arch: Arch, modules: int, mode: str) -> list[PhasePlan]:
    """Plan the phases of the paper's recipe in a mode (`sequential`, `joint`, `parallel`), or `e2e` training."""
    if mode == 'e2e':
        return [plan_phase(cluster, arch, 'E2E', [(end_to_end(arch.depth), parameters(arch, arch.depth))], E2E)]
    division = Division.of(arch.depth, modules)
    counts = [trained_parameters(arch, division, f'module_{i}') for i in range(modules)]
    trained = [(module(division, i), count) for i, count in enumerate(counts)]
    if mode == 'joint':
        middle = plan_phase(cluster, arch, 'modules', [(joint(division), sum(counts))], MODULE)
    else:
        middle = plan_phase(cluster, arch, 'modules', trained, MODULE, modules if mode == 'parallel' else 1, modules)
    meta = plan_phase(cluster, arch, 'meta', [(end_to_end(modules), parameters(arch, modules))], META)
    finetune = plan_phase(cluster, arch, 'finetune', [(end_to_end(arch.depth), parameters(arch, arch.depth))], FINETUNE)
    return [meta, middle, finetune]


def hours(phases: list[PhasePlan]) -> float:
    """Return the hours of all phases."""
    return sum(phase.hours for phase in phases)
