"""Make the released MM packages run on current torch: mmcv's ops on torchvision, safe loading of checkpoints."""
