"""Cheap measures of a ViT's features: k-NN and a linear probe on classified images."""
