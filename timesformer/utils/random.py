"""Random numbers as a function of (seed, epoch, sample): never of worker state or order of execution."""

from __future__ import annotations

import numpy as np


def numpy_generator(*key: int) -> np.random.Generator:
    """A generator that depends on the non-negative integers of `key` alone."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def step_seed(seed: int, *, epoch: int, step: int, rank: int) -> int:
    """The seed for dropout and stochastic depth of a training step: a resumed run draws the same numbers.

    Args:
        seed: RNG_SEED.
        epoch: from 0.
        step: of the epoch, from 0.
        rank: of the process.
    """
    return torch_seed(numpy_generator(seed, epoch, step, rank, 2))


def torch_seed(generator: np.random.Generator) -> int:
    """A seed for torch, drawn from `generator`."""
    return int(generator.integers(0, 2**63 - 1))
