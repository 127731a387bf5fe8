"""The hybrid network: the meta model with one of its blocks replaced by a target module."""
from collections.abc import Callable, Sequence

import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import Tensor, nn

from mmincubation.checkpoints import digest
from mmincubation.models.classifier import BaseClassifier
from mmincubation.registry import MODELS
from mmincubation.vit.spec import Arch, Division, layer_of
from mmincubation.vit.transformer import VisionTransformer, drop_path_ramp, set_drop_path

from .part import META, Part, run_drawn
from .recipe import module_drop_path


@MODELS.register_module()
class IncubationModel(BaseClassifier):
    """A target ViT and its meta model, of which the current phase trains one part, or all K modules side by side.

    `modules` is the number K of equal modules, or their depths. After construction the target is what trains and
    predicts; `set_phase` changes that. The target is drawn first, so that it begins as an E2E model of one seed.
    `with_cp`: see `models.vit.run_block`.
    """

    def __init__(self, arch: str | dict, modules: int | list[int] = 4, data_preprocessor: dict | None = None,
                 with_cp: bool = False):
        super().__init__(data_preprocessor)
        arch = Arch.parse(arch)
        self.division = Division.of(arch.depth, modules)
        self.target = VisionTransformer(arch, with_cp=with_cp)
        self.meta = VisionTransformer(arch.with_depth(len(self.division)), with_cp=with_cp)
        self._seed, self._upstream = None, None
        self.set_phase('finetune')

    def set_phase(self, phase: str, drop_path_rate: float | Sequence[float] = 0., recipe: str = 'clean') -> None:
        """Select what trains and what runs: `meta`, `module_<i>` (the hybrid around target module i), `modules` (all K
        hybrids, each with its own entry of `drop_path_rate` if that is a sequence) or `finetune`.

        Everything else is frozen, and leaves the device; gradients left over from another phase are dropped.

        Raises:
            ValueError: the hybrids of `modules` cannot share their upstream meta blocks.
        """
        every = range(len(self.division))
        rates = [drop_path_rate] * len(every) if isinstance(drop_path_rate, float | int) else drop_path_rate
        self.phase = phase
        self.modules_trained = [i for i in every if phase in ('modules', f'module_{i}')]
        self._rates = {i: module_drop_path(recipe, self.division, i, rates[i]) for i in self.modules_trained}
        self._check_shared()
        self.parts = self._parts()
        self._wrapped: dict[str, nn.Module] = {}
        self.zero_grad(set_to_none=True)
        self.train_only(*self.parts)
        self.show(self.modules_trained[0] if self.modules_trained else None)
        if not self.modules_trained:
            blocks = self.meta.blocks if phase == 'meta' else self.target.blocks
            set_drop_path(blocks, drop_path_ramp(rates[0], len(blocks)))

    def _check_shared(self) -> None:
        """An upstream meta block does the same in whatever hybrid it is."""
        for j in range(len(self.division)):
            seen = sorted({meta_rates[j] for i, (meta_rates, _) in self._rates.items() if i > j})
            if len(seen) > 1:
                raise ValueError(f'modules trained jointly share the meta blocks before them, but block {j} has the '
                                 f'stochastic depths {seen}: give all modules one depth and one drop_path_rate, or '
                                 "take recipe='clean' or mode='sequential'")

    def _parts(self) -> dict[str, nn.Module]:
        """What the phase trains, by name. Not submodules: the parameters have their names in their ViT."""
        if self.modules_trained:
            return {f'module_{i}': Part(self.target, self.division, i) for i in self.modules_trained}
        return {self.phase: self.meta if self.phase == 'meta' else self.target}

    def train_only(self, *names: str) -> None:
        """Freeze everything but these of the phase's parts."""
        self.requires_grad_(False)
        for name in names:
            self.parts[name].requires_grad_(True)

    def distribute(self, wrap: Callable[[nn.Module], nn.Module]) -> None:
        """Let the phase's parts train through `wrap(part)`, such as DistributedDataParallel; predictions do not."""
        self._wrapped = {name: wrap(part) for name, part in self.parts.items()}

    def network(self, name: str) -> nn.Module:
        """One of the phase's parts, as it trains."""
        return self._wrapped.get(name, self.parts[name])

    def show(self, module: int | None) -> None:
        """Be the hybrid around a module from now on, also one that another process trains; None: no hybrid."""
        self._run_as(module)
        self._place()

    def _run_as(self, module: int | None) -> None:
        self.incubating = module
        if module in self._rates:
            meta_rates, target_rates = self._rates[module]
            set_drop_path(self.meta.blocks, meta_rates)
            set_drop_path([self.target.blocks[i] for i in self.division.span(module)], target_rates)

    def resident(self, name: str) -> bool:
        """Whether a parameter is of what runs."""
        vit, _, key = name.partition('.')
        modules = {*self.modules_trained, self.incubating} - {None}
        if vit == 'target':
            return self.phase == 'finetune' or self.division.module_of(key) in modules
        return self.phase == 'meta' or bool(modules - {layer_of(key, len(self.division)) - 1})

    def _place(self) -> None:
        """Keep on the device what runs; the rest waits on the CPU."""
        device = self.data_preprocessor.mean.device
        if device.type in ('cpu', 'meta'):
            return
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(device if self.resident(name) else 'cpu')

    @property
    def block_forwards(self) -> int:
        """Blocks that one image passes in a training step of this phase."""
        if not self.modules_trained:
            return len(self.division) if self.phase == 'meta' else self.division.depth
        upstream, last = self.modules_trained[-1], len(self.division) - 1
        return upstream + sum(self.division.depths[i] + last - i for i in self.modules_trained)

    def train_step(self, data: dict, optim_wrapper: OptimWrapper | OptimWrapperDict) -> dict[str, Tensor]:
        """One step of each part that the phase trains; `optim_wrapper` has one for each if they are several modules.

        Modules train one after another on the same batch: only one has activations at a time, and the meta blocks
        before a module go on from where they were for the module before it.
        """
        several = isinstance(optim_wrapper, OptimWrapperDict)
        data, logs = self.data_preprocessor(data, True), {}
        # Hybrids that differ must draw alike; a single one draws as the E2E model that it is.
        self._seed, self._upstream = torch.initial_seed() if len(self.division) > 1 else None, None
        for name in self.parts:
            wrapper = optim_wrapper[name] if several else optim_wrapper
            if self.modules_trained[1:]:
                self._run_as(int(name.removeprefix('module_')))
            with wrapper.optim_context(self.network(name)):
                loss, values = self.parse_losses(self._run_forward(data, mode='loss'))
            wrapper.update_params(loss)
            logs |= {f'{name}.{key}' if several else key: value for key, value in values.items()}
        self._seed, self._upstream = None, None
        return logs

    def logits(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes), through what the phase runs."""
        if self.incubating is None:
            return (self.network(self.phase) if self.training else self.parts[self.phase])(images)
        return self.hybrid(images)

    def hybrid(self, images: Tensor) -> Tensor:
        """The meta model around target module `self.incubating`.

        Meta blocks before it run without a graph; those after it pass gradients through but have none of their own.
        """
        module, name = self.incubating, f'module_{self.incubating}'
        part = self.network(name) if self.training else self.parts.get(name) or Part(self.target, self.division, module)
        tokens = part(images if module == 0 else self._before(images), self._seed)
        for j in range(module + 1, len(self.division)):
            tokens = run_drawn(self.meta.blocks[j], tokens, self._seed, META, j, with_cp=self.meta.with_cp)
        return tokens if module == len(self.division) - 1 else self.meta.classify(tokens)

    @torch.no_grad()
    def _before(self, images: Tensor) -> Tensor:
        """What enters the target module; within a training step it is kept for the next one."""
        start, tokens = self._upstream or (0, self.meta.stem(images))
        for j in range(start, self.incubating):
            tokens = run_drawn(self.meta.blocks[j], tokens, self._seed, META, j, with_cp=self.meta.with_cp)
        if self._seed is not None:
            self._upstream = self.incubating, tokens
        return tokens

    def export(self) -> tuple[str, dict, dict]:
        """Name, tensors (timm's names, global block numbers) and file header of what the phase trains."""
        header = dict(arch=self.target.arch.to_dict(), division=list(self.division.depths))
        if self.phase == 'meta':
            return 'meta', self.meta.state_dict(), dict(header, kind='meta', arch=self.meta.arch.to_dict())
        tensors = self.target.state_dict()
        if self.incubating is None:
            return 'finetune', tensors, dict(header, kind='vit')
        name = f'module_{self.incubating}'
        header.update(
            kind='part', module=self.incubating, phase=name, meta_digest=digest(self.meta.state_dict()))
        return name, self.division.part(tensors, self.incubating), header
