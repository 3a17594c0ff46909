"""Random numbers as a function of (seed, epoch, sample): never of worker state or order of execution."""

from __future__ import annotations

import numpy as np


def numpy_generator(*key: int) -> np.random.Generator:
    """A generator that depends on the non-negative integers of `key` alone."""
    return np.random.default_rng(np.random.SeedSequence(list(key)))


def torch_seed(generator: np.random.Generator) -> int:
    """A seed for torch, drawn from `generator`."""
    return int(generator.integers(0, 2**63 - 1))
