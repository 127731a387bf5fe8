"""What the released MM packages lack on today's torch: mmcv's ops on torchvision, safe loading of checkpoints."""
