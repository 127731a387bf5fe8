"""Classification data sets, repeated augmentation, and checks of all samples that a run reads."""
