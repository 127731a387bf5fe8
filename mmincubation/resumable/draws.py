"""Random draws from a key such as (seed, epoch, place), so that checkpoints need no state of a generator."""
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


def _seeds(key: tuple[int, ...]) -> list[int]:
    return np.random.SeedSequence(key).generate_state(3).tolist()


def seed_process(*key: int) -> None:
    """Seed the generators of Python, NumPy and torch (CPU and GPU) with `key`."""
    seeds = _seeds(key)
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.manual_seed(seeds[2])


def generator_of(device: torch.device, *key: int) -> torch.Generator:
    """Return a new torch generator on a device, seeded with `key`."""
    return torch.Generator(device).manual_seed(_seeds(key)[2])


def _seed_loading(*key: int) -> None:
    seeds = _seeds(key)
    random.seed(seeds[0])
    np.random.seed(seeds[1])
    torch.default_generator.manual_seed(seeds[2])


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the CPU generators of Python, NumPy and torch with `key` inside, and restore their states afterwards.

    So a sample does not depend on the worker or rank that loads it, nor on what was loaded before; and with
    `num_workers=0` loading does not change the model's draws. GPU generators do not change, because loading uses none.
    In a worker nothing else draws: there the states are not restored, which would take half of the time.
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
