"""The hybrid network: the meta model with one of its blocks replaced by a target module."""
import torch
from torch import Tensor

from mmincubation.checkpoints import digest
from mmincubation.models.classifier import BaseClassifier
from mmincubation.models.spec import Arch, Division
from mmincubation.models.vit import VisionTransformer, drop_path_ramp, set_drop_path
from mmincubation.registry import MODELS

from .recipe import module_drop_path


@MODELS.register_module()
class IncubationModel(BaseClassifier):
    """A target ViT and its meta model, of which the current phase trains one part.

    `modules` is the number K of equal modules, or their depths. After construction the target is what trains and
    predicts; `set_phase` changes that. The target is drawn first, so that it begins as an E2E model of one seed.
    """

    def __init__(self, arch: str | dict, modules: int | list[int] = 4, data_preprocessor: dict | None = None):
        super().__init__(data_preprocessor)
        arch = Arch.parse(arch)
        self.division = Division.of(arch.depth, modules)
        self.target = VisionTransformer(arch)
        self.meta = VisionTransformer(arch.with_depth(len(self.division)))
        self.set_phase('finetune')

    def set_phase(self, phase: str, drop_path_rate: float = 0., recipe: str = 'clean') -> None:
        """Select what trains and what runs: `meta`, `module_<i>` (the hybrid around target module i) or `finetune`.

        Everything else is frozen; gradients left over from another phase are dropped.
        """
        self.phase = phase
        self.incubating = int(phase.removeprefix('module_')) if phase.startswith('module_') else None
        self.requires_grad_(False)
        self.zero_grad(set_to_none=True)
        for parameter in self._trained().values():
            parameter.requires_grad_(True)
        self._set_drop_path(drop_path_rate, recipe)

    def _trained(self) -> dict:
        """Parameters that the phase trains, under their names in their ViT."""
        if self.phase == 'meta':
            return dict(self.meta.named_parameters())
        target = dict(self.target.named_parameters())
        return target if self.incubating is None else self.division.part(target, self.incubating)

    def _set_drop_path(self, rate: float, recipe: str) -> None:
        if self.incubating is None:
            blocks = self.meta.blocks if self.phase == 'meta' else self.target.blocks
            return set_drop_path(blocks, drop_path_ramp(rate, len(blocks)))
        meta_rates, target_rates = module_drop_path(recipe, self.division, self.incubating, rate)
        set_drop_path(self.meta.blocks, meta_rates)
        set_drop_path(self._target_blocks(), target_rates)

    def _target_blocks(self) -> list:
        return [self.target.blocks[i] for i in self.division.span(self.incubating)]

    @property
    def block_forwards(self) -> int:
        """Blocks that one image passes in a training step of this phase."""
        if self.incubating is None:
            return len(self.division) if self.phase == 'meta' else self.division.depth
        return self.division.depths[self.incubating] + len(self.division) - 1

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes), through what the phase runs."""
        if self.incubating is None:
            return (self.meta if self.phase == 'meta' else self.target)(images)
        return self.hybrid(images)

    def hybrid(self, images: Tensor) -> Tensor:
        """The meta model around target module `self.incubating`.

        Meta blocks before it run without a graph; those after it pass gradients through but have none of their own.
        """
        first, last = self.incubating == 0, self.incubating == len(self.division) - 1
        with torch.set_grad_enabled(first and torch.is_grad_enabled()):
            tokens = (self.target if first else self.meta).stem(images)
            for block in self.meta.blocks[:self.incubating]:
                tokens = block(tokens)
        for block in [*self._target_blocks(), *self.meta.blocks[self.incubating + 1:]]:
            tokens = block(tokens)
        return (self.target if last else self.meta).classify(tokens)

    def export(self) -> tuple[str, dict, dict]:
        """Name, tensors (timm's names, global block numbers) and file header of what the phase trains."""
        header = dict(arch=self.target.arch.to_dict(), division=list(self.division.depths))
        if self.phase == 'meta':
            return 'meta', self.meta.state_dict(), dict(header, kind='meta', arch=self.meta.arch.to_dict())
        tensors = self.target.state_dict()
        if self.incubating is None:
            return 'finetune', tensors, dict(header, kind='vit')
        header.update(kind='part', module=self.incubating, phase=self.phase, meta_digest=digest(self.meta.state_dict()))
        return self.phase, self.division.part(tensors, self.incubating), header
