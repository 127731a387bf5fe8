"""The model of an incubation: a target ViT and the meta model in which its modules are incubated."""
from collections.abc import Callable, Iterable

from torch import Tensor, nn

from mmincubation.hashes import digest
from mmincubation.models.classifier import BaseClassifier
from mmincubation.registry import MODELS
from mmincubation.vit import Arch, Division, VisionTransformer

from .hybrid import Hybrid
from .phases import FINETUNE, META, module_number


@MODELS.register_module()
class IncubationModel(BaseClassifier):
    """The target and the meta model. One of their networks predicts, and one or more train.

    Networks have the names of the phases that train them: `meta`, `module_<i>` (the hybrid around target module i) and
    `finetune` (the target). After construction `finetune` predicts and trains. The target is drawn first, so that
    its random weights are those of an E2E model of the same seed.

    Args:
        modules: the number K of equal modules, or their depths.
        meta_depth: the number of the meta model's blocks for each module; the paper has one.
        with_cp: see `vit.transformer.run_block`.
    """
    trains_in_phases = True  # `FullyShard` must not wrap the whole model

    def __init__(self, arch: str | dict, modules: int | list[int] = 4, data_preprocessor: dict | None = None,
                 with_cp: bool = False, meta_depth: int = 1):
        super().__init__(data_preprocessor)
        arch = Arch.parse(arch)
        self.division = Division.of(arch.depth, modules, meta_depth)
        self.target = VisionTransformer(arch, with_cp=with_cp)  # before the meta model, for the same draws as E2E
        self.meta = VisionTransformer(arch.with_depth(self.division.meta.depth), with_cp=with_cp)
        self.trained = (FINETUNE, )
        self.predict_with(FINETUNE)

    def network(self, name: str, upstream: Callable | None = None) -> nn.Module:
        """Return the network that a phase trains, from images (B, 3, H, W) to logits; `upstream` as in `Hybrid`."""
        if name in (META, FINETUNE):
            return self.meta if name == META else self.target
        return Hybrid(self.target, self.meta, self.division, module_number(name), upstream)

    def predict_with(self, name: str) -> None:
        """Predict with this network, also if another rank trains it. Move what runs to the device."""
        self.predicting = name
        self._predictor = [self.network(name)]  # in a list, because its parameters are registered already
        self._place()

    def train_only(self, *networks: nn.Module) -> None:
        """Freeze all parameters but those of these networks."""
        self.requires_grad_(False)
        for network in networks:
            network.requires_grad_(True)

    def set_trained(self, trained: Iterable[str]) -> None:
        """Drop old gradients, predict with the first network that will train, and move what runs to the device."""
        self.zero_grad(set_to_none=True)
        self.trained = tuple(trained)
        self.predict_with(self.trained[0])

    def is_resident(self, name: str) -> bool:
        """Return whether a parameter is needed to train or predict; the others stay on the CPU."""
        vit, _, key = name.partition('.')
        running = {*self.trained, self.predicting}
        modules = {module_number(network) for network in running} - {None}
        if vit == 'target':
            return FINETUNE in running or self.division.module_of(key) in modules
        # A module replaces its part of the meta model: if only that module runs, the part is not needed.
        return META in running or bool(modules - {self.division.meta.module_of(key)})

    def _place(self) -> None:
        device = self.data_preprocessor.mean.device
        if device.type in ('cpu', 'meta'):
            return
        for name, parameter in self.named_parameters():
            parameter.data = parameter.data.to(device if self.is_resident(name) else 'cpu')

    def forward(self, inputs: Tensor, labels: Tensor | None = None, mode: str = 'tensor',
                network: nn.Module | None = None):
        """Return what `BaseClassifier.forward` does, by `network`, or without one by the network that is shown."""
        return self.outputs(self.logits(inputs) if network is None else network(inputs), labels, mode)

    def logits(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to logits (B, classes) by the network that is shown."""
        return self._predictor[0](images)

    def export(self) -> tuple[str, dict, dict]:
        """Return name, tensors (timm's names, global block numbers) and file header of the network that is shown.

        A hybrid exports its target module only.
        """
        header = dict(arch=self.target.arch.to_dict(), division=list(self.division.depths), **self.pixels)
        if self.predicting == META:
            return META, self.meta.state_dict(), dict(header, kind='meta', arch=self.meta.arch.to_dict())
        tensors, module = self.target.state_dict(), module_number(self.predicting)
        if module is None:
            return FINETUNE, tensors, dict(header, kind='vit')
        header.update(kind='part', module=module, phase=self.predicting, meta_digest=digest(self.meta.state_dict()))
        return self.predicting, self.division.entries_of(tensors, module), header
