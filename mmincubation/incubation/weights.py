"""Pass weights from phase to phase of an incubation: within one model, or through a folder of files."""
from collections.abc import Iterable
from pathlib import Path

from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log

from mmincubation.checkpoints import CheckpointError, load_vit, write_tensors
from mmincubation.vit.transformer import VisionTransformer

from .assemble import assemble
from .model import IncubationModel
from .phases import FINETUNE, Phase
from .start import begin_module


class PhaseWeights:
    """Give the model, before each phase, the weights from earlier phases.

    `folder` has the files of all phases. `names` are the names of all phases. `only` is the phase that runs alone, or
    None.
    """

    def __init__(self, model: IncubationModel, folder: Path, start: str, names: list[str], only: str | None):
        self.model, self.folder, self.start, self.names = model, folder, start, names
        self.alone = only is not None

    def prepare(self, phase: Phase, trained: Iterable[int]) -> None:
        """Give the model the weights that the phase begins with; `trained` are the modules that this run trains.

        Raises:
            CheckpointError: a phase runs alone, and a file that it needs is missing or does not fit.
        """
        modules = [sub.module for sub in phase.subphases or [phase] if sub.module is not None]
        if modules:
            if self.alone:
                self._load(phase, self.model.meta, self.folder / 'meta_last.safetensors')
            self._begin_modules(modules)
        elif phase.name == FINETUNE and self.alone:  # on every rank: all raise alike
            self._load(phase, self.model.target, self._assemble(phase))
        elif phase.name == FINETUNE:
            self._begin_modules(set(range(len(self.model.division))) - set(trained))  # a baseline: no incubation
            if is_main_process():  # the modules were trained in this model, so it is assembled
                write_tensors(self.folder / 'assembled.safetensors', self.model.target.state_dict(), dict(
                    kind='vit', arch=self.model.target.arch.to_dict(), division=list(self.model.division.depths)))

    def _begin_modules(self, modules: Iterable[int]) -> None:
        for module in modules:
            begin_module(self.model.target, self.model.meta, self.model.division, module, self.start)

    def _assemble(self, phase: Phase) -> Path:
        """Join the files of the modules, which other runs wrote, into one file; return its path."""
        files = [self.folder / f'module_{i}_last.safetensors' for i in range(len(self.model.division))]
        for file in files:
            self._require_file(phase, file)
        assembled = self.folder / 'assembled.safetensors'
        tensors, header = assemble(files)
        if is_main_process():
            write_tensors(assembled, tensors, header)
        barrier()  # the other ranks read it next
        return assembled

    def _require_file(self, phase: Phase, path: Path) -> None:
        if not path.is_file():
            raise CheckpointError(f'phase {phase.name} needs {path}; run the phases before it first '
                                  f'(--phase NAME, one of {self.names})')

    def _load(self, phase: Phase, vit: VisionTransformer, path: Path) -> None:
        self._require_file(phase, path)
        print_log(f'{path}: {load_vit(vit, path)["coverage"]}', 'current')
