"""What makes a run that was killed and resumed the same run: where its data go on, and where its draws come from."""
from .loops import EpochLoop, IterLoop, make_resumable

__all__ = ['EpochLoop', 'IterLoop', 'make_resumable']
