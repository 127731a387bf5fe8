"""Deep Incubation: the hybrid network, its phases, and the training loop that runs them."""
from .assemble import assemble, split
from .hybrid import IncubationModel
from .loop import IncubationLoop
from .start import STARTS, begin_module

__all__ = ['STARTS', 'IncubationLoop', 'IncubationModel', 'assemble', 'begin_module', 'split']
