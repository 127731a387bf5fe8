"""Hooks that count the cost, write results and weights, average, log and draw."""
from .cost import CostMeter
from .ema import EMAHook
from .logs import PhaseLogProcessor
from .result import ResultHook
from .visualization import TestPicturesHook
from .weights import WeightsHook

__all__ = ['CostMeter', 'EMAHook', 'PhaseLogProcessor', 'ResultHook', 'TestPicturesHook', 'WeightsHook']
