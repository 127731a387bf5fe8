"""What a run needs around its model: data, optimiser, hooks, logs, and the launcher of the tools."""
from .accuracy import Accuracy
from .cost import CostMeter
from .data_errors import DataErrorsHook
from .hooks import CheckpointGuard, PhaseSeedHook, WeightsHook
from .log import PhaseLogProcessor
from .optim import AutocastOptimWrapper, ViTOptimWrapperConstructor
from .result_hook import ResultHook
from .visualization import ClsVisualizationHook

__all__ = [
    'Accuracy', 'AutocastOptimWrapper', 'CheckpointGuard', 'ClsVisualizationHook', 'CostMeter', 'DataErrorsHook',
    'PhaseLogProcessor', 'PhaseSeedHook', 'ResultHook', 'ViTOptimWrapperConstructor', 'WeightsHook'
]
