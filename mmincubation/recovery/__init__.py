"""What lets a run end for a reason and go on: checkpoints, guards, locks, and the ways a run is stopped."""
from .checkpoint_guard import CheckpointGuard
from .checkpoint_hook import CheckpointHook

__all__ = ['CheckpointGuard', 'CheckpointHook']
