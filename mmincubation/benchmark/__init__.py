"""Measure the time and the memory of training steps."""
