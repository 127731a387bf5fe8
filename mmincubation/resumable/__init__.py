"""What makes a run that was killed and resumed the same run: where its data go on, and where its draws come from."""
from .loops import EpochLoop, IterLoop, exact_loop

__all__ = ['EpochLoop', 'IterLoop', 'exact_loop']
