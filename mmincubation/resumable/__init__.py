"""Loops and loaders with which a killed and resumed run gives the same results as an uninterrupted one."""
from .loops import EpochLoop, IterLoop, make_resumable

__all__ = ['EpochLoop', 'IterLoop', 'make_resumable']
