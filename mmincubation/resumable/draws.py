"""Random draws as functions of a key, such as (seed, epoch, place): no generator's state has to be stored."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


def _seeds(key: tuple[int, ...]) -> list[int]:
    return np.random.SeedSequence(key).generate_state(3).tolist()


def seed_process(*key: int) -> None:
    """Let Python, NumPy and torch (CPU and GPU) draw from `key` from now on."""
    seeds = _seeds(key)
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])


def generator_of(device: torch.device, *key: int) -> torch.Generator:
    """Return a new generator of torch, on a device, that draws from `key`."""
    return torch.Generator(device).manual_seed(_seeds(key)[2])


def _seed_loading(*key: int) -> None:
    seeds = _seeds(key)
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Draw from `key` inside, on Python's, NumPy's and torch's CPU generators, and as if nothing had happened after.

    So it does not matter which worker or rank loads a sample, nor what it has loaded before; and with `num_workers=0`
    the model's own draws do not move. GPU generators are left alone: loading uses none. In a worker nothing else draws,
    so nothing is put back there: it would cost half of the time.
    """
    if get_worker_info() is not None:
        _seed_loading(*key)
        yield
        return
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        _seed_loading(*key)
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
