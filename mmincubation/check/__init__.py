"""Check whether a config would run on this machine, without training: what tools/check.py reports."""
