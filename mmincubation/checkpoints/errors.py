"""The error of everything that reads or writes weights."""


class CheckpointError(ValueError):
    """A weight file cannot be used; the message names the file and the remedy."""
