"""A dataloader that measures how long the process waits for it."""
from collections.abc import Iterator
from time import perf_counter

from torch.utils.data import DataLoader


class TimedLoader(DataLoader):
    """torch's DataLoader; `waited` counts the seconds that this process has spent in it.

    With workers these are the waits for batches and for the start of the workers, without them the loading itself.
    """
    waited = 0.

    def __iter__(self) -> Iterator:
        began = perf_counter()
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                self.waited += perf_counter() - began
            yield batch
            began = perf_counter()
