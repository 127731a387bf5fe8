"""Count the cost of each phase and of a recipe in block-forwards and in FLOPs."""
from __future__ import annotations

from dataclasses import astuple, dataclass

from mmincubation.vit.spec import Arch, Division

# The paper's: epochs of the meta model, of each module, of fine-tuning, and of end-to-end training.
META, MODULE, FINETUNE, E2E = 300, 100, 100, 300
# Matrix products of one attention: forward, and backward where the scores are stored or, fused, computed again.
SCORES, SCORES_BACK, SCORES_BACK_FUSED = 2, 4, 5


@dataclass(frozen=True)
class Units:
    """Count the passes through blocks that one image makes in a training step; all kinds cost about the same.

    - `forward`: forward passes.
    - `inputs`: passes that compute the gradient of a block's input.
    - `weights`: passes that compute the gradients of its weights.
    - `stem_weights` and `head_weights`: the same for stem and head; `stems` and `heads` are their forward passes.
    """
    forward: int
    inputs: int
    weights: int
    stems: int = 1
    stem_weights: int = 0
    heads: int = 1
    head_weights: int = 0

    @property
    def total(self) -> int:
        """The sum of the passes through blocks, in block-forwards."""
        return self.forward + self.inputs + self.weights

    def __add__(self, other: Units) -> Units:
        return Units(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


def end_to_end(depth: int) -> Units:
    """Return the units of training `depth` blocks end to end: the meta model, fine-tuning, E2E."""
    return Units(depth, depth, depth, stem_weights=1, head_weights=1)


def module(division: Division, i: int, public: bool = False) -> Units:
    """Return the units of the hybrid of module i: forward only upstream; forward and input gradients downstream.

    The `public` code also computes the weight gradients of the frozen meta blocks and head downstream.
    """
    own, replaced = division.depths[i], division.meta.span(i)
    after = division.meta.depth - replaced.stop
    return Units(replaced.start + own + after, own + after, own + public * after, stem_weights=int(i == 0),
                 head_weights=int(public or not after))


def joint(division: Division) -> Units:
    """Return the units of all modules on one batch: what is upstream of several modules is computed once."""
    modules = len(division)
    every = total(module(division, i) for i in range(modules))
    again = division.meta_depth * (modules * (modules - 1) // 2 - (modules - 1))  # of the meta blocks upstream
    stems = 1 + (modules > 1)  # module 0 has its own, the others share the meta model's
    return Units(every.forward - again, every.inputs, every.weights, stems, 1, every.heads, every.head_weights)


def of_phase(division: Division, phase: str, public: bool = False) -> Units:
    """Return the units of a phase by name; `modules` is all of them, jointly (the public code has no such mode)."""
    if phase.startswith('module_'):
        return module(division, int(phase.removeprefix('module_')), public)
    if phase == 'modules':
        return total(module(division, i, True) for i in range(len(division))) if public else joint(division)
    return end_to_end(division.meta.depth if phase == 'meta' else division.depth)


def total(units) -> Units:
    """Return the sum of several units."""
    return sum(units, Units(0, 0, 0, 0, 0, 0, 0))


def recipe(depth: int, modules: int = 4, meta: int = META, each: int = MODULE, finetune: int = FINETUNE,
           mode: str = 'sequential') -> dict[str, int]:
    """Return the block-forwards of a recipe for each image of the training set.

    The keys are `meta`, `modules` (all of them, each for `each` epochs, in `mode` sequential, joint or public) and
    `finetune`; the arguments of these names are epochs, but `modules` is a number of modules.
    """
    division = Division.of(depth, modules)
    if mode == 'joint':
        step = joint(division).total
    else:
        step = sum(module(division, i, mode == 'public').total for i in range(modules))
    return dict(meta=meta * end_to_end(modules).total, modules=each * step, finetune=finetune * end_to_end(depth).total)


@dataclass(frozen=True)
class BlockFlops:
    """Count the FLOPs of an image in matrix products; a multiply-add is two.

    - `linear`: the linear layers of a block.
    - `attention`: one product of its attention.
    - `stem`: the patch embedding.
    - `head`: the classifier.
    """
    linear: int
    attention: int
    stem: int
    head: int

    @classmethod
    def of(cls, arch: Arch) -> BlockFlops:
        """Return the FLOPs of a ViT at its own image size."""
        patches, dim = arch.grid**2, arch.embed_dim
        tokens = patches + 1
        hidden = int(arch.mlp_ratio * dim)
        return cls(linear=2 * tokens * (4 * dim * dim + 2 * dim * hidden), attention=2 * tokens**2 * dim,
                   stem=2 * patches * dim * 3 * arch.patch_size**2, head=2 * dim * arch.num_classes)

    def step(self, units: Units, fused: bool = True) -> int:
        """Return the FLOPs of one image in a training step.

        `fused` attention computes its scores again in the backward pass.
        """
        back = SCORES_BACK_FUSED if fused else SCORES_BACK
        blocks = self.linear * units.total + self.attention * (SCORES * units.forward + back * units.inputs)
        stems = self.stem * (units.stems + units.stem_weights)
        return blocks + stems + self.head * (2 * units.heads + units.head_weights)

    @property
    def attention_share(self) -> float:
        """The share of a block's forward FLOPs that grows with the square of the tokens."""
        return SCORES * self.attention / (self.linear + SCORES * self.attention)


def parameters(arch: Arch, blocks: int, stem: bool = True, head: bool = True) -> int:
    """Return the number of parameters of `blocks` blocks, of the stem, and of norm and head."""
    dim, hidden = arch.embed_dim, int(arch.mlp_ratio * arch.embed_dim)
    block = dim * 3 * dim + 3 * dim * arch.qkv_bias + dim * dim + dim + 2 * dim * hidden + hidden + dim + 4 * dim
    stems = 3 * arch.patch_size**2 * dim + dim + (arch.grid**2 + 2) * dim
    heads = 2 * dim + dim * arch.num_classes + arch.num_classes
    return blocks * block + stem * stems + head * heads


def trained_parameters(arch: Arch, division: Division, phase: str) -> int:
    """Return the number of parameters that a phase trains, whose gradients are all-reduced."""
    if not phase.startswith('module_'):
        return parameters(arch, division.meta.depth if phase == 'meta' else division.depth)
    i = int(phase.removeprefix('module_'))
    return parameters(arch, division.depths[i], i == 0, i == len(division) - 1)
