"""What a run needs around its model: data, optimiser, hooks, logs, and the launcher of the tools."""
from .accuracy import Accuracy
from .checkpoint_hook import CheckpointHook
from .cost import CostMeter
from .ema import EMAHook
from .hooks import CheckpointGuard, WeightsHook
from .log import PhaseLogProcessor
from .optim import AutocastOptimWrapper, ViTOptimWrapperConstructor
from .result_hook import ResultHook
from .visualization import ClsVisualizationHook

__all__ = [
    'Accuracy', 'AutocastOptimWrapper', 'CheckpointGuard', 'CheckpointHook', 'ClsVisualizationHook', 'CostMeter',
    'EMAHook', 'PhaseLogProcessor', 'ResultHook', 'ViTOptimWrapperConstructor', 'WeightsHook'
]
