"""Would this config run here? What tools/check.py answers without training."""
