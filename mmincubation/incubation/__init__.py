"""Deep Incubation: the hybrid network, its phases, and the training loop that runs them."""
from .assemble import assemble, split
from .hybrid import Hybrid
from .loop import IncubationLoop
from .model import IncubationModel
from .start import STARTS, begin_module

__all__ = ['STARTS', 'Hybrid', 'IncubationLoop', 'IncubationModel', 'assemble', 'begin_module', 'split']
