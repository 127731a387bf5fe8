"""Pass weights from phase to phase of an incubation: within one model, or through a folder of files."""
from collections.abc import Iterable, Set
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from mmincubation.checkpoints import CheckpointError, load_vit, write_tensors
from mmincubation.vit.transformer import VisionTransformer

from .assemble import assemble
from .model import IncubationModel
from .phases import FINETUNE, META, Phase
from .start import begin_module


def missing_weights(phase: str, incubated: Set[int], folder: Path) -> str | None:
    """Return in words which file that a phase alone begins with is not in `folder`; None if all are there.

    `incubated` are the modules that have epochs. Without them fine-tuning begins with the meta model, as modules do.
    """
    parts = [f'module_{i}' for i in sorted(incubated)] if phase == FINETUNE else []
    needed = [] if phase == META else parts or ['meta']
    missing = [file for name in needed if not (file := folder / f'{name}_last.safetensors').is_file()]
    return f'phase {phase} needs {missing[0]}; run the phases before it first (--phase NAME)' if missing else None


class PhaseWeights:
    """Give the model, before each phase, the weights from earlier phases.

    `folder` has the files of all phases. `only` is the phase that runs alone, or None. `incubated` are the modules
    that have epochs, in this run or in others.
    """

    def __init__(self, model: IncubationModel, folder: Path, start: str, only: str | None, incubated: Set[int]):
        self.model, self.folder, self.start, self.incubated = model, folder, start, incubated
        self.alone = only is not None

    def prepare(self, phase: Phase) -> None:
        """Give the model the weights that the phase begins with.

        Raises:
            CheckpointError: a phase runs alone, and a file that it needs is missing or does not fit.
        """
        modules = [sub.module for sub in phase.subphases or [phase] if sub.module is not None]
        if self.alone and (missing := missing_weights(phase.name, self.incubated, self.folder)):
            raise CheckpointError(missing)
        if modules:
            if self.alone:
                self._load_meta()
            self._begin_modules(modules)
        elif phase.name == FINETUNE and self.alone and self.incubated:  # on every rank: all raise alike
            self._load(self.model.target, self._assemble())
        elif phase.name == FINETUNE:
            if self.alone:
                self._load_meta()
            self._begin_modules(set(range(len(self.model.division))) - self.incubated)  # a control: no incubation
            if is_main_process():  # the other modules were trained in this model, so it is assembled
                write_tensors(self.folder / 'assembled.safetensors', self.model.target.state_dict(), dict(
                    kind='vit', arch=self.model.target.arch.to_dict(), division=list(self.model.division.depths),
                    **self.model.pixels))

    def _begin_modules(self, modules: Iterable[int]) -> None:
        for module in modules:
            begin_module(self.model.target, self.model.meta, self.model.division, module, self.start)

    def _assemble(self) -> Path:
        """Join the files of the modules, which other runs wrote, into one file; return its path."""
        files = [self.folder / f'module_{i}_last.safetensors' for i in range(len(self.model.division))]
        assembled = self.folder / 'assembled.safetensors'
        tensors, header = assemble(files)
        if is_main_process():
            write_tensors(assembled, tensors, header)
        barrier()  # the other ranks read it next
        return assembled

    def _load_meta(self) -> None:
        self._load(self.model.meta, self.folder / 'meta_last.safetensors')

    def _load(self, vit: VisionTransformer, path: Path) -> None:
        print_log(f'{path}: {load_vit(vit, path)["coverage"]}', 'current')
