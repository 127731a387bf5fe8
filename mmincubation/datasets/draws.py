"""Random draws of one sample, a function of (seed, epoch, sample, repeat) and of nothing else."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Draw from `key` inside, on Python's, NumPy's and torch's CPU generators, and as if nothing had happened after.

    So it does not matter which worker or rank loads a sample, nor what it has loaded before; and with `num_workers=0`
    the model's own draws do not move. GPU generators are left alone: loading uses none.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    seeds = np.random.SeedSequence(key).generate_state(3).tolist()
    try:
        random.seed(seeds[0])
        np.random.seed(seeds[1])
        torch.default_generator.manual_seed(seeds[2])
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
