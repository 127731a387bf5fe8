"""Hooks that count the cost, write results and weights, average, log and draw."""
from .cost import CostMeter
from .ema import EMAHook
from .logs import PhaseLogProcessor
from .result import ResultHook
from .visualization import ClsVisualizationHook
from .weights import WeightsHook

__all__ = ['ClsVisualizationHook', 'CostMeter', 'EMAHook', 'PhaseLogProcessor', 'ResultHook', 'WeightsHook']
