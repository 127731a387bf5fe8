"""Checkpoints, guards, locks and orderly stops: what lets an interrupted run resume."""
from .checkpoint_guard import CheckpointGuard
from .checkpoint_hook import CheckpointHook

__all__ = ['CheckpointGuard', 'CheckpointHook']
